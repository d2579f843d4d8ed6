package blob

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// noise does not compress, so that the stream is worth a process.
func noise(t *testing.T) []byte {
	t.Helper()
	in := layer(t, 9<<20)
	require.Greater(t, len(compress(t, in, Gzip, nil, len(in))), igzipMin)
	return in
}

func TestLargeStreamsAreDecompressedByAProcess(t *testing.T) {
	_, err := exec.LookPath("igzip")
	require.NoError(t, err, "hack/install-deps.sh installs it")
	in := noise(t)
	for _, form := range []Compression{Gzip, EStargz} { // of one member and of many
		packed := compress(t, in, form, nil, len(in))
		r, err := NewDecompressor(bytes.NewReader(packed))
		require.NoError(t, err)
		require.IsType(t, &filter{}, r)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(got, in))
		require.NoError(t, r.Close())
	}
	short := compress(t, in[:1000], Gzip, nil, 1000)
	r, err := NewDecompressor(bytes.NewReader(short))
	require.NoError(t, err)
	_, process := r.(*filter)
	require.False(t, process)
	require.NoError(t, r.Close())
}

func TestTheProcessEndsWithItsReader(t *testing.T) {
	packed := compress(t, noise(t), Gzip, nil, 1<<20)
	r, err := NewDecompressor(bytes.NewReader(packed))
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	pid := r.(*filter).cmd.Process.Pid
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.NoFileExists(t, "/proc/"+strconv.Itoa(pid)+"/stat")
	_, err = io.ReadAll(r)
	require.Error(t, err, "half a layer is not the whole")
}

func TestFaultsOfStreamsAreReportedByTheProcess(t *testing.T) {
	packed := compress(t, noise(t), Gzip, nil, 1<<20)
	broken := bytes.Clone(packed)
	broken[len(broken)/2] ^= 0xff
	gone := errors.New("source is gone")
	for name, tc := range map[string]struct {
		in   io.Reader
		want error
	}{
		"cut off": {bytes.NewReader(packed[:len(packed)-100]), nil},
		"broken":  {bytes.NewReader(broken), nil},
		"source":  {io.MultiReader(bytes.NewReader(packed[:len(packed)-100]), errReader{gone}), gone},
	} {
		r, err := NewDecompressor(tc.in)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, r)
		require.ErrorContains(t, err, "decompress", name)
		if tc.want != nil {
			require.ErrorIs(t, err, tc.want, name)
		}
		require.NoError(t, r.Close())
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestProgramsUnderstandWhatIsMade(t *testing.T) {
	in := layer(t, 3<<20)
	for form, programs := range map[Compression][][]string{
		Gzip:    {{"gzip", "-t"}, {"unpigz", "-t"}, {"tar", "tz"}},
		EStargz: {{"gzip", "-t"}, {"tar", "tz"}},
		Zstd:    {{"zstd", "-t", "-q"}, {"tar", "-t", "--zstd"}},
	} {
		for _, words := range programs {
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Stdin = bytes.NewReader(compress(t, in, form, nil, len(in)))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %v: %s", form, words, out)
			if words[0] == "tar" {
				require.Equal(t, "d/\nd/empty\nd/noise\nd/small\ntext\n", string(out), form)
			}
		}
	}
}
