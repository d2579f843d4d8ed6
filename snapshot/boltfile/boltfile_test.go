package boltfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

func TestADamagedFileIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"both first pages overwritten": func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b },
		"cut off in the first page":    func(b []byte) []byte { return b[:100] },
		"something else":               func([]byte) []byte { return []byte("hello") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			require.NoError(t, Check(path), "no file is no fault")
			db, err := Open(path)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
				_, err := tx.CreateBucket([]byte("b"))
				return err
			}))
			require.NoError(t, db.Close())
			require.NoError(t, Check(path))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(b), 0o600))
			require.NoError(t, Check(path))
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			db, err = Open(path)
			require.NoError(t, err)
			require.NoError(t, db.Close())
		})
	}
}

func TestAFileThatCannotBeReadIsNotTouched(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(dir, 0o700))
	_, err := Open(dir)
	require.Error(t, err)
	require.DirExists(t, dir)
}
