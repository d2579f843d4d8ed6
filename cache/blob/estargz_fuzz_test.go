package blob

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

// Archives of other people's layers are converted too. What is taken is in the blob as it was.
func FuzzEStargz(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add(layer(f, 3000))
	f.Add(layer(f, 3000)[:2000])
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		w, err := new(Compressors).New(&out, EStargz, nil)
		require.NoError(t, err)
		_, _ = w.Write(in)
		if w.Close() != nil {
			return
		}
		r, err := NewDecompressor(bytes.NewReader(out.Bytes()))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.True(t, bytes.HasPrefix(got, in))
		require.Equal(t, digest.FromBytes(in), w.ArchiveDigest())
		require.Equal(t, digest.FromBytes(got), w.DiffID())
	})
}
