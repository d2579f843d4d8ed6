package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// NewLayout returns the blobs of the OCI layout in a folder (OCI image-spec, image-layout.md) as a
// store that is only read: what would change it is errdefs.ErrNotImplemented. Nothing is written
// to the folder, not even to look what its file system can do.
func NewLayout(dir string) (content.Store, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	return layout{blobs: filepath.Join(dir, ocispec.ImageBlobsDir)}, nil
}

type layout struct{ blobs string }

// errReadOnly is the answer to all that would change a layout.
var errReadOnly = fmt.Errorf("OCI layout is only read: %w", errdefs.ErrNotImplemented)

func (l layout) open(dgst digest.Digest) (*os.File, content.Info, error) {
	if err := dgst.Validate(); err != nil {
		return nil, content.Info{}, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	f, err := os.Open(filepath.Join(l.blobs, dgst.Algorithm().String(), dgst.Encoded()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, content.Info{}, fmt.Errorf("content %s: %w", dgst, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, content.Info{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("content %s is no file: %w", dgst, errdefs.ErrNotFound)
	}
	if err != nil {
		_ = f.Close()
		return nil, content.Info{}, err
	}
	return f, content.Info{Digest: dgst, Size: st.Size(), CreatedAt: st.ModTime(), UpdatedAt: st.ModTime()}, nil
}

// Info describes a blob.
func (l layout) Info(_ context.Context, dgst digest.Digest) (content.Info, error) {
	f, info, err := l.open(dgst)
	if err != nil {
		return content.Info{}, err
	}
	return info, f.Close()
}

type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// ReaderAt opens a blob.
func (l layout) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	f, info, err := l.open(desc.Digest)
	if err != nil {
		return nil, err
	}
	return file{f, info.Size}, nil
}

// Walk lists nothing: a layout is read by digest.
func (layout) Walk(context.Context, content.WalkFunc, ...string) error { return errReadOnly }

// Update changes no labels.
func (layout) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, errReadOnly
}

// Delete removes nothing.
func (layout) Delete(context.Context, digest.Digest) error { return errReadOnly }

// Writer writes nothing.
func (layout) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, errReadOnly
}

// Status knows of no write in progress.
func (layout) Status(_ context.Context, ref string) (content.Status, error) {
	return content.Status{}, fmt.Errorf("ingest %s: %w", ref, errdefs.ErrNotFound)
}

// ListStatuses knows of no write in progress.
func (layout) ListStatuses(context.Context, ...string) ([]content.Status, error) { return nil, nil }

// Abort ends nothing.
func (layout) Abort(_ context.Context, ref string) error {
	return fmt.Errorf("ingest %s: %w", ref, errdefs.ErrNotFound)
}
