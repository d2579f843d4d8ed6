package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
)

// newPrefix begins the names of the files of blobs that are being written.
const newPrefix = "new-"

// files lists the long blobs and, when the folder is opened, what was not written to its end.
func (t *table) files() (map[digest.Digest]bool, error) {
	entries, err := os.ReadDir(t.blobDir())
	if err != nil {
		return nil, err
	}
	files := map[digest.Digest]bool{}
	for _, e := range entries {
		if t.db != nil && strings.HasPrefix(e.Name(), newPrefix) {
			continue // somebody is writing it
		}
		files[digest.NewDigestFromEncoded(digest.Canonical, e.Name())] = true
	}
	return files, nil
}

// blobPath is the path of a long blob. The digest must be valid.
func (t *table) blobPath(dgst digest.Digest) string {
	return filepath.Join(t.blobDir(), dgst.Encoded())
}

// removeFile removes a long blob. The caller holds mu, so that nobody reserves it meanwhile, or is the only one.
func (t *table) removeFile(dgst digest.Digest) {
	delete(t.checked, dgst)
	if err := os.Remove(t.blobPath(dgst)); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.L.WithError(err).Error("a blob of the history stays")
	}
}

// reserve has a long blob, which is there or about to be, stay until put or letGo is called with it.
func (t *table) reserve(dgst digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending[dgst]++
}

// unreserve is the reverse of reserve. The caller holds mu.
func (t *table) unreserve(dgst digest.Digest) {
	if t.pending[dgst]--; t.pending[dgst] <= 0 {
		delete(t.pending, dgst)
	}
}

// giveBack is letGo for who does not hold mu.
func (t *table) giveBack(blobs []blob) {
	if len(blobs) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.letGo(blobs)
}

// letGo gives up blobs that no record is to have after all. The caller holds mu.
func (t *table) letGo(blobs []blob) {
	for _, b := range blobs {
		if b.data == nil {
			t.unreserve(b.digest)
		}
	}
	t.loosen(blobs)
}

// loosen has long blobs removed, in a while, that no record has. The caller holds mu.
func (t *table) loosen(blobs []blob) {
	for _, b := range blobs {
		if b.data == nil {
			t.loose = append(t.loose, b.digest)
			t.flushIn(delay)
		}
	}
}

// keep makes a blob of bytes. Long ones go to a file, which is there until put or letGo is called with it.
func (t *table) keep(data []byte) (blob, error) {
	dgst := digest.FromBytes(data)
	if data == nil {
		data = []byte{}
	}
	if len(data) <= maxShort {
		return blob{dgst, data}, nil
	}
	f, err := os.CreateTemp(t.blobDir(), newPrefix)
	if err != nil {
		return blob{}, err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		return t.place(f.Name(), dgst)
	}
	return blob{}, errors.Join(err, os.Remove(f.Name()))
}

// place moves a file to where the blob is that it holds.
func (t *table) place(path string, dgst digest.Digest) (blob, error) {
	b := blob{digest: dgst}
	t.reserve(dgst)
	err := os.Rename(path, t.blobPath(dgst))
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.letGo([]blob{b})
		return blob{}, errors.Join(err, os.Remove(path))
	}
	t.checked[dgst] = true
	return b, nil
}

// adopt makes a blob of a file, which is moved, as keep does.
func (t *table) adopt(path string) (blob, error) {
	f, err := os.Open(path)
	if err != nil {
		return blob{}, err
	}
	defer f.Close()
	dgst, err := digest.FromReader(f)
	if err != nil {
		return blob{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return blob{}, err
	}
	return t.place(path, dgst)
}

// check returns an error of kind errdefs.ErrDataLoss unless a file has the content that its digest says. It
// reads all of it, once in the life of the program.
func (t *table) check(f *os.File, dgst digest.Digest) error {
	t.mu.Lock()
	done := t.checked[dgst]
	t.mu.Unlock()
	if done {
		return nil
	}
	got, err := digest.FromReader(f)
	if err != nil {
		return err
	}
	if got != dgst {
		return damaged(dgst)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checked[dgst] = true
	return nil
}
