package blob

import (
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenGzip is the digest that text(3*gzipBlock+5) has always had.
const goldenGzip = "89c3e6595bc14a29c199d36f45ee216b66f44b02d62a44bdd32179fb19f93120"

func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"layer ", "blob ", "digest ", "cache\n", "snapshot ", "0123456789"}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.Bytes()[:n]
}

func compress(t *testing.T, in []byte, c Compression, level *int, chunk int) []byte {
	var out bytes.Buffer
	w, err := NewCompressor(&out, c, level)
	require.NoError(t, err)
	for p := in; len(p) > 0; {
		n := min(chunk, len(p))
		_, err := w.Write(p[:n])
		require.NoError(t, err)
		p = p[n:]
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestEveryFormComesBack(t *testing.T) {
	one := 1
	for _, size := range []int{0, 1, 100, gzipBlock - 1, gzipBlock, gzipBlock + 1, 5*gzipBlock + 77} {
		in := text(size)
		for _, c := range []Compression{Uncompressed, Gzip} {
			for _, level := range []*int{nil, &one} {
				packed := compress(t, in, c, level, 1<<16)
				r, err := NewDecompressor(bytes.NewReader(packed))
				require.NoError(t, err)
				got, err := io.ReadAll(r)
				require.NoError(t, err)
				require.True(t, bytes.Equal(in, got), "%s of %d bytes", c, size)
			}
		}
		z, err := stdgzip.NewReader(bytes.NewReader(compress(t, in, Gzip, nil, 999)))
		require.NoError(t, err)
		got, err := io.ReadAll(z)
		require.NoError(t, err)
		require.True(t, bytes.Equal(in, got))
	}
}

func TestGzipBytesDependOnTheInputAlone(t *testing.T) {
	in := text(3*gzipBlock + 5)
	want := compress(t, in, Gzip, nil, len(in))
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	for _, chunk := range []int{1 << 10, 1<<20 + 1, 77777} {
		require.True(t, bytes.Equal(want, compress(t, in, Gzip, nil, chunk)))
		runtime.GOMAXPROCS(4)
	}
	// Layers made by different versions of the program should have the same digest.
	sum := sha256.Sum256(want)
	require.Equal(t, goldenGzip, hex.EncodeToString(sum[:]))
}

func TestGzipReportsTheErrorOfTheWriterBelow(t *testing.T) {
	full := errors.New("disk full")
	w, err := NewCompressor(failAfter{new(int), 100, full}, Gzip, nil)
	require.NoError(t, err)
	_, _ = w.Write(text(3 * gzipBlock))
	require.ErrorIs(t, w.Close(), full)
	require.ErrorIs(t, w.Close(), full)
}

type failAfter struct {
	n     *int
	limit int
	err   error
}

func (f failAfter) Write(p []byte) (int, error) {
	if *f.n += len(p); *f.n > f.limit {
		return 0, f.err
	}
	return len(p), nil
}

func TestUnknownFormsAndLevelsAreRefused(t *testing.T) {
	_, err := NewCompressor(io.Discard, EStargz, nil)
	require.ErrorContains(t, err, "estargz")
	level := 42
	_, err = NewCompressor(io.Discard, Gzip, &level)
	require.ErrorContains(t, err, "42")
}

func TestMediaTypesTellTheForm(t *testing.T) {
	for _, c := range []Compression{Uncompressed, Gzip, Zstd} {
		for _, docker := range []bool{false, true} {
			got, known := FromMediaType(MediaType(c, docker))
			require.True(t, known)
			require.Equal(t, c, got)
		}
	}
	got, known := FromMediaType("application/vnd.example.layer.v1.tar+gzip")
	require.False(t, known)
	require.Equal(t, Gzip, got)
}

func FuzzDecompressor(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := NewDecompressor(bytes.NewReader(in))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		require.NoError(t, r.Close())
	})
}

func BenchmarkGzip(b *testing.B) {
	in := text(32 << 20)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		w, _ := NewCompressor(io.Discard, Gzip, nil)
		_, _ = w.Write(in)
		_ = w.Close()
	}
}
