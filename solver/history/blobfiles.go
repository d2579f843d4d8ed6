package history

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
)

// files lists the long blobs.
func (t *table) files() (map[digest.Digest]bool, error) {
	entries, err := os.ReadDir(t.blobDir())
	if err != nil {
		return nil, err
	}
	files := map[digest.Digest]bool{}
	for _, e := range entries {
		files[digest.NewDigestFromEncoded(digest.Canonical, e.Name())] = true
	}
	return files, nil
}

// blobPath is the path of a long blob. The digest must be valid.
func (t *table) blobPath(dgst digest.Digest) string {
	return filepath.Join(t.blobDir(), dgst.Encoded())
}

func (t *table) removeFile(dgst digest.Digest) {
	if err := os.Remove(t.blobPath(dgst)); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.L.WithError(err).Error("a blob of the history stays")
	}
}

// keep makes a blob of bytes. Long ones go to a file.
func (t *table) keep(data []byte) (blob, error) {
	dgst := digest.FromBytes(data)
	if data == nil {
		data = []byte{}
	}
	if len(data) <= maxShort {
		return blob{dgst, data}, nil
	}
	f, err := os.CreateTemp(t.blobDir(), "new-")
	if err != nil {
		return blob{}, err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), t.blobPath(dgst))
	}
	if err != nil {
		return blob{}, errors.Join(err, os.Remove(f.Name()))
	}
	return blob{digest: dgst}, nil
}

// adopt makes a blob of a file, which is moved.
func (t *table) adopt(path string) (blob, error) {
	f, err := os.Open(path)
	if err != nil {
		return blob{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return blob{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return blob{}, err
	}
	dgst := digest.NewDigest(digest.Canonical, h)
	return blob{digest: dgst}, os.Rename(path, t.blobPath(dgst))
}
