package blob

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

// The digests that layers of the tests have always had.
const (
	goldenGzip    = "89c3e6595bc14a29c199d36f45ee216b66f44b02d62a44bdd32179fb19f93120"
	goldenZstd    = "23f46f8fabf255721d4619fa1fa266234b0bb8d85a17c9be67f8abba74dd3792"
	goldenEStargz = "c0add1415999f069c5ea04c1836a345d27d57d08ad85d300bd76538196b94de8"
)

// text returns the first n bytes of a text that is the same always.
func text(n int) []byte {
	if n <= len(allText()) {
		return allText()[:n]
	}
	return makeText(n)
}

var allText = sync.OnceValue(func() []byte { return makeText(8 << 20) })

func makeText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"layer ", "blob ", "digest ", "cache\n", "snapshot ", "0123456789"}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.Bytes()[:n]
}

func compress(t testing.TB, in []byte, c Compression, level *int, chunk int) []byte {
	var out bytes.Buffer
	w, err := new(Compressors).New(&out, c, level)
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

// forms are all forms with levels of each kind that their compressors have.
var forms = map[Compression][]int{
	Uncompressed: nil, Gzip: {0, 1, 6, 9}, Zstd: {1, 7, 22}, EStargz: {6},
}

// layer returns an archive of a file of some text and of one that does not compress.
func layer(t testing.TB, size int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	noise := make([]byte, size/3)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for _, f := range []struct {
		name string
		data []byte
	}{{"d/", nil}, {"d/empty", nil}, {"d/noise", noise}, {"d/small", []byte("small")}, {"text", text(size - len(noise))}} {
		kind := byte(tar.TypeReg)
		if strings.HasSuffix(f.name, "/") {
			kind = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: kind, Name: f.name, Mode: 0o755, Size: int64(len(f.data)), Format: tar.FormatPAX}))
		_, err := w.Write(f.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func decompress(t testing.TB, packed []byte) []byte {
	r, err := NewDecompressor(bytes.NewReader(packed))
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return got
}

func TestEveryFormComesBack(t *testing.T) {
	one := 1
	for _, size := range []int{0, 1, 100, blockSize - 1, blockSize, blockSize + 1, 9*blockSize + 77} {
		in := text(size)
		for _, c := range []Compression{Uncompressed, Gzip, Zstd} {
			for _, level := range []*int{nil, &one} {
				require.True(t, bytes.Equal(in, decompress(t, compress(t, in, c, level, 1<<16))), "%s of %d bytes", c, size)
			}
		}
		z, err := stdgzip.NewReader(bytes.NewReader(compress(t, in, Gzip, nil, 999)))
		require.NoError(t, err)
		got, err := io.ReadAll(z)
		require.NoError(t, err)
		require.True(t, bytes.Equal(in, got))
	}
}

func TestBytesDependOnInputFormAndLevelAlone(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for form, levels := range forms {
		in := layer(t, 2<<20)
		if form == Zstd {
			in = layer(t, 3*zstdPiece+99)
		}
		all := []*int{nil}
		if raced {
			levels = levels[:min(1, len(levels))] // they differ in how hard goroutines work, not in how these meet
		}
		for _, l := range levels {
			all = append(all, &l)
		}
		for _, level := range all {
			var want []byte
			for i, procs := range []int{1, 2, 8} {
				runtime.GOMAXPROCS(procs)
				got := compress(t, in, form, level, []int{len(in), 1<<20 + 1, 77777}[i])
				if want == nil {
					want = got
				}
				require.True(t, bytes.Equal(want, got), "%s with %d cores", form, procs)
			}
		}
	}
}

// The pools of compressors must not let one layer change the bytes of the next.
func TestBytesDoNotDependOnWhatWasCompressedBefore(t *testing.T) {
	for form, levels := range forms {
		if raced {
			levels = levels[:min(1, len(levels))]
		}
		for _, level := range levels {
			var want [][]byte
			sizes := []int{2 << 20, 100, 50000}
			for range 2 {
				for i, size := range sizes {
					got := compress(t, layer(t, size), form, &level, 1<<20)
					if len(want) < len(sizes) {
						want = append(want, got)
					}
					require.True(t, bytes.Equal(want[i], got), "%s level %d", form, level)
				}
				slices.Reverse(sizes)
				slices.Reverse(want)
			}
		}
	}
}

// Layers made by different versions of the program should have the same digest.
func TestDigestsStayWhatTheyWere(t *testing.T) {
	for form, want := range map[Compression]string{
		Gzip:    goldenGzip,
		Zstd:    goldenZstd,
		EStargz: goldenEStargz,
	} {
		in := layer(t, 3*blockSize+5)
		if form == Gzip {
			in = text(3*blockSize + 5)
		}
		sum := sha256.Sum256(compress(t, in, form, nil, len(in)))
		require.Equal(t, want, hex.EncodeToString(sum[:]), form)
	}
}

func TestDigestsOfWhatWentInAndOfWhatComesOut(t *testing.T) {
	in := layer(t, 5<<20)
	for form := range forms {
		var out bytes.Buffer
		w, err := new(Compressors).New(&out, form, nil)
		require.NoError(t, err)
		_, err = w.Write(in)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		if form == Uncompressed {
			require.Empty(t, w.ArchiveDigest())
			require.Empty(t, w.DiffID())
			continue
		}
		require.Equal(t, digest.FromBytes(in), w.ArchiveDigest(), form)
		got := decompress(t, out.Bytes())
		require.Equal(t, digest.FromBytes(got), w.DiffID(), form)
		if form != EStargz {
			require.Nil(t, w.Annotations())
			continue
		}
		require.True(t, bytes.HasPrefix(got, in), "the archive is in the blob as it was")
		require.Equal(t, strconv.Itoa(len(got)), w.Annotations()[estargz.StoreUncompressedSizeAnnotation])
	}
}

func TestReadersOfEStargzUnderstandIt(t *testing.T) {
	in := layer(t, 15<<20)
	var out bytes.Buffer
	w, err := new(Compressors).New(&out, EStargz, nil)
	require.NoError(t, err)
	_, err = w.Write(in)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	section := io.NewSectionReader(bytes.NewReader(out.Bytes()), 0, int64(out.Len()))
	_, _, err = estargz.OpenFooter(section)
	require.NoError(t, err)
	r, err := estargz.Open(section)
	require.NoError(t, err)
	verifier, err := r.VerifyTOC(digest.Digest(w.Annotations()[estargz.TOCJSONDigestAnnotation]))
	require.NoError(t, err)
	files := map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(in)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		files[h.Name], err = io.ReadAll(tr)
		require.NoError(t, err)
	}
	for _, name := range []string{"d/empty", "d/noise", "d/small", "text"} {
		f, err := r.OpenFile(name)
		require.NoError(t, err)
		got := make([]byte, f.Size())
		_, err = f.ReadAt(got, 0)
		if len(got) > 0 {
			require.NoError(t, err)
		}
		require.True(t, bytes.Equal(files[name], got), name)
		for at := int64(0); at < f.Size(); {
			chunk, ok := r.ChunkEntryForOffset(name, at)
			require.True(t, ok)
			v, err := verifier.Verifier(chunk)
			require.NoError(t, err)
			_, err = v.Write(got[at : at+chunk.ChunkSize])
			require.NoError(t, err)
			require.True(t, v.Verified(), "%s at %d", name, at)
			at += chunk.ChunkSize
		}
	}
}

func TestArchivesThatEStargzCannotHoldAreRefused(t *testing.T) {
	done := layer(t, 1000)
	for name, in := range map[string][]byte{
		"compressed": compress(t, done, Gzip, nil, len(done)),
		"no archive": []byte(strings.Repeat("no archive ", 200)),
		"cut off":    done[:len(done)/2],
	} {
		w, err := new(Compressors).New(io.Discard, EStargz, nil)
		require.NoError(t, err)
		_, _ = w.Write(in)
		require.Error(t, w.Close(), name)
		require.Error(t, w.Close(), name)
	}
}

func TestErrorsOfTheWriterBelowAreReported(t *testing.T) {
	full := errors.New("disk full")
	in := layer(t, 20*blockSize)
	for form := range forms {
		w, err := new(Compressors).New(failAfter{new(int), 100, full}, form, nil)
		require.NoError(t, err)
		_, _ = w.Write(in)
		require.ErrorIs(t, w.Close(), full, form)
		require.ErrorIs(t, w.Close(), full, form)
		_, err = w.Write(in)
		require.Error(t, err)
	}
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
	for _, tc := range []struct {
		form  Compression
		level int
		want  string
	}{
		{Gzip, 0, ""},
		{Gzip, 9, ""},
		{Gzip, 10, "compression level 10 of gzip is out of range: 0 to 9"},
		{Gzip, -1, "compression level -1 of gzip is out of range: 0 to 9"},
		{EStargz, 10, "compression level 10 of estargz is out of range: 0 to 9"},
		{Zstd, 22, ""},
		{Zstd, 23, "compression level 23 of zstd is out of range: 0 to 22"},
		{Uncompressed, 42, ""},
		{"lzw", 1, "unsupported compression type lzw"},
	} {
		err := CheckLevel(tc.form, &tc.level)
		if tc.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, tc.want)
		_, err = new(Compressors).New(io.Discard, tc.form, &tc.level)
		require.EqualError(t, err, tc.want)
	}
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

func BenchmarkCompressor(b *testing.B) {
	in := layer(b, 64<<20)
	for _, form := range []Compression{Uncompressed, Gzip, Zstd, EStargz} {
		b.Run(string(form), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				w, err := new(Compressors).New(io.Discard, form, nil)
				require.NoError(b, err)
				_, _ = w.Write(in)
				require.NoError(b, w.Close())
			}
		})
	}
}

// links returns an archive of n links.
func links(t testing.TB, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "link" + strconv.Itoa(i), Linkname: "text", Mode: 0o777}))
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}
