package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/snapshot/layer"
)

func TestClampKeepsWhatIsEarlier(t *testing.T) {
	latest := time.Unix(1000, 0)
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	body := []byte("text")
	for _, h := range []*tar.Header{
		{Name: "early", ModTime: time.Unix(999, 0), Mode: 0o644, Size: 4, Typeflag: tar.TypeReg},
		{
			Name: "late", ModTime: time.Unix(2000, 5), AccessTime: time.Unix(3000, 0), ChangeTime: time.Unix(10, 0), Mode: 0o4755, Size: 4,
			Typeflag: tar.TypeReg, Format: tar.FormatPAX, Uid: 7, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00c"},
		},
		{Name: ".wh.gone", ModTime: time.Unix(2000, 0), Typeflag: tar.TypeReg},
		{Name: "link", Linkname: "late", ModTime: time.Unix(2000, 0), Typeflag: tar.TypeLink},
		{Name: "dir/", ModTime: time.Unix(2000, 0), Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "null", ModTime: time.Unix(1, 0), Devmajor: 1, Devminor: 3, Typeflag: tar.TypeChar},
	} {
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write(body)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, layer.Clamp(&out, bytes.NewReader(in.Bytes()), latest))

	before, after := tar.NewReader(&in), tar.NewReader(&out)
	for {
		want, err := before.Next()
		if errors.Is(err, io.EOF) {
			_, err := after.Next()
			require.ErrorIs(t, err, io.EOF)
			return
		}
		require.NoError(t, err)
		got, err := after.Next()
		require.NoError(t, err)
		require.False(t, got.ModTime.After(latest) || got.AccessTime.After(latest) || got.ChangeTime.After(latest), got.Name)
		if want.ModTime.Before(latest) {
			require.True(t, want.ModTime.Equal(got.ModTime))
		}
		require.True(t, want.ChangeTime.Equal(got.ChangeTime))
		for _, h := range []*tar.Header{want, got} {
			h.ModTime, h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}, time.Time{}
			delete(h.PAXRecords, "mtime")
			delete(h.PAXRecords, "atime")
			delete(h.PAXRecords, "ctime")
		}
		require.Equal(t, want, got)
		text, err := io.ReadAll(after)
		require.NoError(t, err)
		if want.Size > 0 {
			require.Equal(t, body, text)
		}
	}
}

func TestClampToATimeBefore1970(t *testing.T) {
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}))
	require.NoError(t, w.Close())
	require.NoError(t, layer.Clamp(&out, &in, time.Unix(-5, 0)))
	h, err := tar.NewReader(&out).Next()
	require.NoError(t, err)
	require.EqualValues(t, -5, h.ModTime.Unix())
}

func TestClampRefusesWhatIsNoArchive(t *testing.T) {
	require.Error(t, layer.Clamp(io.Discard, bytes.NewReader(bytes.Repeat([]byte{7}, 2048)), time.Unix(0, 0)))
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "a", Size: 4096}))
	require.ErrorIs(t, layer.Clamp(io.Discard, &in, time.Unix(0, 0)), io.ErrUnexpectedEOF)
}

func TestClampDoesNotUnpackHoles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/vast", []byte("a"), 0o600))
	require.NoError(t, os.Truncate(dir+"/vast", 1<<40))
	for _, format := range []string{"gnu", "pax"} {
		data, err := exec.Command("tar", "--sparse", "--format="+format, "--directory="+dir, "--create", "vast").Output()
		require.NoError(t, err)
		require.EqualError(t, layer.Clamp(io.Discard, bytes.NewReader(data), time.Unix(0, 0)), "vast is a sparse file")
	}
}

// What was clamped once stays as it is.
func FuzzClamp(f *testing.F) {
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	_ = w.WriteHeader(&tar.Header{Name: "a", Size: 1, ModTime: time.Unix(5, 5), Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}})
	_, _ = w.Write([]byte("x"))
	_ = w.Close()
	f.Add(in.Bytes(), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, sec int64) {
		if sec < 0 || sec > 1<<33 {
			return
		}
		var once, twice bytes.Buffer
		if layer.Clamp(&once, bytes.NewReader(data), time.Unix(sec, 0)) != nil {
			return
		}
		if err := layer.Clamp(&twice, bytes.NewReader(once.Bytes()), time.Unix(sec, 0)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once.Bytes(), twice.Bytes()) {
			t.Fatal("another archive the second time")
		}
	})
}
