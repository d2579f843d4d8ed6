package wire

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
)

const (
	// reserveSize is how many bytes are kept for the time when the disk is full; reserveLeast is
	// worth keeping if there are no more.
	reserveSize  = 4 << 20
	reserveLeast = 128 << 10
	// reserveBelow is how many free bytes are too few to go on with.
	reserveBelow = 2 << 20
)

// reserve is space on the disk of the state that nobody uses. To remove something needs some space
// too, as all stores are written to; on a disk that others have filled the reserve is given up
// while the daemon opens its state, removes records and closes, and taken again afterwards.
type reserve struct {
	path string
	mu   sync.Mutex
}

// release gives the space up if the disk is full. It tells whether that is so.
func (r *reserve) release() (full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if free, ok := freeSpace(r.path); ok && free >= reserveBelow {
		return false
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.L.WithError(err).Error("the space that is kept for a full disk cannot be used")
	}
	return true
}

// makeRoom is release for history.Config.
func (r *reserve) makeRoom() (restore func()) {
	if r.release() {
		return r.keep
	}
	return nil
}

// keep takes the space, or what there is of it.
func (r *reserve) keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, err := os.Stat(r.path); err == nil && st.Size() >= reserveSize {
		return
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.L.WithError(err).Warn("no space is kept for a full disk")
		return
	}
	defer f.Close()
	for size := int64(reserveSize); size >= reserveLeast; size /= 2 {
		// Some file systems cannot do it: then there is no reserve.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, unix.ENOSPC) {
			return
		}
	}
}

// freeSpace returns the free bytes of the file system that path is on; none if it can have no more
// files. Path itself need not exist.
func freeSpace(path string) (free int64, ok bool) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, false
	}
	if st.Files > 0 && st.Ffree == 0 {
		return 0, true
	}
	return int64(st.Bfree) * st.Bsize, true
}

// reserving is a storage that can be pruned on a full disk.
type reserving struct {
	control.Storage
	reserve *reserve
}

// Prune implements control.Storage.
func (s reserving) Prune(ctx context.Context, policies []gc.Policy, emit func(cache.Usage)) error {
	s.reserve.release()
	defer s.reserve.keep()
	return s.Storage.Prune(ctx, policies, emit)
}
