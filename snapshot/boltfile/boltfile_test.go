package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

var names = []string{"small", "large", "nested", "long"}

func makeBuckets(tx *bbolt.Tx) error {
	for _, name := range names {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// fill makes a file with all kinds of pages, by writing and deleting.
func fill(t testing.TB, path string, seed int64, list bool) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: !list, NoSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(makeBuckets))
	for range 8 {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			for range 50 {
				if err := change(tx, rnd); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.NoError(t, db.Close())
}

func change(tx *bbolt.Tx, rnd *rand.Rand) error {
	key := fmt.Append(nil, rnd.IntN(150))
	if rnd.IntN(3) == 0 {
		return errors.Join(tx.Bucket([]byte("large")).Delete(key), tx.Bucket([]byte("long")).Delete(key))
	}
	sub, err := tx.Bucket([]byte("nested")).CreateBucketIfNotExists(fmt.Append(nil, rnd.IntN(5)))
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket([]byte("small")).Put([]byte("one"), key),
		tx.Bucket([]byte("large")).Put(key, bytes.Repeat(key, 30)),
		tx.Bucket([]byte("long")).Put(key[:1], bytes.Repeat(key, 3000)),
		sub.Put(key, key))
}

// use reads all of a file and writes to it, as far as that goes.
func use(db *DB) error {
	return errors.Join(
		db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, _ []byte) error { return nil })
			})
		}),
		db.Update(func(tx *bbolt.Tx) error {
			rnd := rand.New(rand.NewPCG(7, 0))
			for range 100 {
				if err := change(tx, rnd); err != nil {
					return err
				}
			}
			return nil
		}))
}

func TestADamagedFileIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"both first pages overwritten": func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b },
		"cut off in the first page":    func(b []byte) []byte { return b[:100] },
		"cut off after the first page": func(b []byte) []byte { return b[:os.Getpagesize()] },
		"cut off in the middle":        func(b []byte) []byte { return b[:len(b)/2] },
		"all zero":                     func(b []byte) []byte { clear(b); return b },
		"something else":               func([]byte) []byte { return []byte("hello") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			require.NoError(t, Check(path), "no file is no fault")
			for range 2 {
				fill(t, path, 1, false)
				require.NoError(t, Check(path))
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(path, damage(b), 0o600))
				require.NoError(t, Check(path))
				require.NoFileExists(t, path)
				aside, err := filepath.Glob(path + ".damaged-*")
				require.NoError(t, err)
				require.Len(t, aside, 1, "the last one")
			}
			db, err := Open(path, makeBuckets)
			require.NoError(t, err)
			require.NoError(t, use(db))
			require.NoError(t, db.Close())
		})
	}
}

// Every page in turn is what a disk may make of it. A file that is not set aside has to be usable.
func TestNoPageEndsTheProgram(t *testing.T) {
	size := os.Getpagesize()
	for _, list := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "db")
		fill(t, path, 2, list)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		for name, damage := range map[string]func(page []byte, number int){
			"zero":         func(page []byte, _ int) { clear(page) },
			"noise":        func(page []byte, n int) { _, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(page) },
			"another page": func(page []byte, n int) { copy(page, whole[(n*7%(len(whole)/size))*size:][:size]) },
			"an old page":  func(page []byte, n int) { copy(page[size/2:], whole[(n*3%(len(whole)/size))*size:][:size/2]) },
		} {
			aside := 0
			for n := range len(whole) / size {
				b := bytes.Clone(whole)
				damage(b[n*size:][:size], n)
				require.NoError(t, os.WriteFile(path, b, 0o600))
				db, err := Open(path, makeBuckets)
				require.NoError(t, err)
				_ = use(db)
				require.NoError(t, db.Close())
				left, err := filepath.Glob(path + ".damaged-*")
				require.NoError(t, err)
				aside += len(left)
				for _, f := range left {
					require.NoError(t, os.Remove(f))
				}
			}
			require.NotZero(t, aside, name)
		}
	}
}

func TestWholeFilesAreNotDamaged(t *testing.T) {
	for seed := range int64(20) {
		path := filepath.Join(t.TempDir(), "db")
		fill(t, path, seed, seed%2 == 0)
		f, err := os.Open(path)
		require.NoError(t, err)
		require.NoError(t, verify(f))
		require.NoError(t, f.Close())
	}
}

func TestABucketThatIsNoneIsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(path, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("outer"))
		if err != nil {
			return err
		}
		return b.Put([]byte("inner"), []byte("value"))
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	db, err = Open(path, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("outer"))
		if err != nil {
			return err
		}
		_, err = b.CreateBucketIfNotExists([]byte("inner"))
		return err
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	aside, err := filepath.Glob(path + ".damaged-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}

func TestAFileThatIsCutOffWhileItIsOpenIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	fill(t, path, 1, false)
	db, err := Open(path, nil)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(2*os.Getpagesize())))
	for range 2 {
		require.ErrorIs(t, use(db), ErrDamaged)
	}
	_ = db.Close()
}

func TestAFileThatIsNotOursToJudgeIsNotTouched(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(folder, 0o700))
	_, err := Open(folder, nil)
	require.Error(t, err)
	require.DirExists(t, folder)

	newer := filepath.Join(t.TempDir(), "db")
	fill(t, newer, 1, false)
	b, err := os.ReadFile(newer)
	require.NoError(t, err)
	for _, off := range []int{0, os.Getpagesize()} {
		b[off+headerSize+4] = 3
	}
	require.NoError(t, os.WriteFile(newer, b, 0o600))
	_, err = Open(newer, nil)
	require.ErrorContains(t, err, "version mismatch")
	require.FileExists(t, newer)
}

// FuzzOpen opens and uses files of which some bytes are others.
func FuzzOpen(f *testing.F) {
	f.Add(int64(1), []byte{0, 0})
	f.Add(int64(2), []byte{8, 255, 16, 1, 24, 3})
	f.Fuzz(func(t *testing.T, seed int64, edits []byte) {
		path := filepath.Join(t.TempDir(), "db")
		fill(t, path, seed%3, seed%2 == 0)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		rnd := rand.New(rand.NewPCG(uint64(seed), 0))
		for _, e := range edits {
			// Most of what matters is at the beginning of pages.
			b[rnd.IntN(len(b)/512)*512+rnd.IntN(64)] = e
		}
		require.NoError(t, os.WriteFile(path, b, 0o600))
		db, err := Open(path, makeBuckets)
		if err != nil {
			return
		}
		_ = use(db)
		_ = db.Close()
	})
}

// A fault of our own code says nothing of the file.
func TestPanicsOfTransactionsAreNoDamage(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "x.db"), makeBuckets)
	require.NoError(t, err)
	var errs []error
	fail := func(tx *bbolt.Tx) error { return errs[tx.Size()] }
	require.Panics(t, func() { _ = db.View(fail) })
	require.Panics(t, func() { _ = db.Update(fail) })
	require.NoError(t, use(db))
	require.NoError(t, db.Close())
}
