//go:build linux

package filesync_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestATreeIsWrittenToTheClient(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	require.NoError(t, os.Lchown(filepath.Join(src, "a"), 5, 6))
	require.NoError(t, os.WriteFile(filepath.Join(dst, "kept"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dst, "sticky"), []byte("in the way"), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(dst, "a/b/c"), 0o755))
	require.NoError(t, os.Symlink("/", filepath.Join(dst, "closed")))
	_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{3: {Dir: dst}}))
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{ExporterID: 3}))
	require.NoError(t, os.Lchown(filepath.Join(src, "a"), 0, 0))
	require.FileExists(t, filepath.Join(dst, "kept"))
	require.NoError(t, os.Remove(filepath.Join(dst, "kept")))
	require.Equal(t, tree(t, src), tree(t, dst))
	require.NoFileExists(t, "/in")
}

func TestDeleteRemovesTheRest(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	require.NoError(t, os.MkdirAll(filepath.Join(dst, "old/dir"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dst, "old/dir/f"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dst, "zz"), nil, 0o644))
	_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{0: {Dir: dst, Delete: true}}))
	err := filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{})
	require.ErrorContains(t, err, "refusing to delete")
	require.FileExists(t, filepath.Join(dst, "zz"))
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{AllPlatforms: true}))
	require.Equal(t, tree(t, src), tree(t, dst))
}

// buffer is an output file in memory.
type buffer struct {
	bytes.Buffer
	closed  int
	aborted error
	full    error
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.full != nil {
		return 0, b.full
	}
	return b.Buffer.Write(p)
}

func (b *buffer) Close() error {
	b.closed++
	return nil
}

func (b *buffer) CloseWithError(err error) error {
	b.aborted = err
	return nil
}

func TestAFileIsWrittenToTheClient(t *testing.T) {
	var got buffer
	var meta map[string]string
	_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{1: {Open: func(m map[string]string) (io.WriteCloser, error) {
		meta = m
		return &got, nil
	}}}))
	w, err := filesync.NewFileWriter(t.Context(), c, 1, map[string]string{"containerimage.digest": "sha256:0", "bad": "ä"})
	require.NoError(t, err)
	want := strings.Repeat("0123456789", 1<<20)
	_, err = io.Copy(w, strings.NewReader("head"+want))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	require.Equal(t, "head"+want, got.String())
	require.Equal(t, 1, got.closed)
	require.Equal(t, map[string]string{"containerimage.digest": "sha256:0"}, meta)
}

func TestAFileTheClientHasIsNotSent(t *testing.T) {
	for name, open := range map[string]func(map[string]string) (io.WriteCloser, error){
		"told by nothing":  func(map[string]string) (io.WriteCloser, error) { return nil, nil },
		"told by an error": func(map[string]string) (io.WriteCloser, error) { return nil, errdefs.ErrAlreadyExists },
	} {
		t.Run(name, func(t *testing.T) {
			_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{0: {Open: open}}))
			w, err := filesync.NewFileWriter(t.Context(), c, 0, nil)
			require.NoError(t, err)
			n, err := w.Write(make([]byte, 20<<20))
			require.NoError(t, err)
			require.Equal(t, 20<<20, n)
			require.NoError(t, w.Close())
		})
	}
}

func TestAFailureOfTheClientsFileIsTold(t *testing.T) {
	got := buffer{full: errors.New("disk full")}
	_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{0: {Open: func(map[string]string) (io.WriteCloser, error) { return &got, nil }}}))
	w, err := filesync.NewFileWriter(t.Context(), c, 0, nil)
	require.NoError(t, err)
	_, err = w.Write(make([]byte, 50<<20))
	if err == nil {
		err = w.Close()
	}
	require.EqualError(t, err, "disk full")
	w.Close()
	require.EqualError(t, got.aborted, "disk full")
}

func TestAnAbandonedFileIsNotClosedAsIfComplete(t *testing.T) {
	done := make(chan struct{})
	got := &aborting{done: done}
	_, c := sessiontest.Connect(t, filesync.NewTarget(map[int]filesync.Output{0: {Open: func(map[string]string) (io.WriteCloser, error) { return got, nil }}}))
	ctx, cancel := context.WithCancel(t.Context())
	w, err := filesync.NewFileWriter(ctx, c, 0, nil)
	require.NoError(t, err)
	_, err = w.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	cancel()
	require.Error(t, w.Close())
	<-done
	require.Zero(t, got.closed)
}

type aborting struct {
	buffer
	done chan struct{}
}

func (a *aborting) CloseWithError(error) error {
	close(a.done)
	return nil
}

func TestAnUnknownExporterIsRefused(t *testing.T) {
	_, c := sessiontest.Connect(t, filesync.NewTarget(nil))
	w, err := filesync.NewFileWriter(t.Context(), c, 5, nil)
	require.NoError(t, err)
	require.EqualError(t, w.Close(), "no output for exporter 5")
	_, c = sessiontest.Connect(t)
	_, err = filesync.NewFileWriter(t.Context(), c, 5, nil)
	require.True(t, errdefs.IsNotImplemented(err))
}
