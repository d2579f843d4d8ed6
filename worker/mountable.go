package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot"
)

type tmpfs struct{ size int64 }

// TmpfsMount returns an empty folder in memory, a new one for every use. size bounds it in bytes; 0
// leaves the bound to the kernel.
func TmpfsMount(size int64) snapshot.Mountable { return tmpfs{size} }

func (t tmpfs) Mount() ([]mount.Mount, func() error, error) {
	opts := []string{"nosuid"}
	if t.size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(t.size, 10))
	}
	return []mount.Mount{{Type: "tmpfs", Source: "tmpfs", Options: opts}}, func() error { return nil }, nil
}

type bind struct{ source string }

// SocketMount returns the unix socket at path of the host. Its owner and mode are the file's.
func SocketMount(path string) snapshot.Mountable { return bind{path} }

func (b bind) Mount() ([]mount.Mount, func() error, error) {
	m := mount.Mount{Type: "bind", Source: b.source, Options: []string{"rbind", "nosuid", "nodev", "noexec"}}
	return []mount.Mount{m}, func() error { return nil }, nil
}

// Secret is a file that must not reach a disk.
type Secret struct {
	Data     []byte
	UID, GID uint32
	// Mode has the permission bits; others are ignored.
	Mode uint32
}

type secret struct {
	dir string
	Secret
}

// SecretMount returns a read-only file in memory with the secret s, a new one for every use. dir is
// a folder of the host below which the memory is mounted while the file is in use; what a daemon
// that was killed leaves there holds the secret until the runtime recovers that folder.
func SecretMount(dir string, s Secret) snapshot.Mountable { return secret{dir, s} }

func (s secret) Mount() (_ []mount.Mount, _ func() error, err error) {
	dir, err := os.MkdirTemp(s.dir, "secret-")
	if err != nil {
		return nil, nil, err
	}
	release := func() error { return errors.Join(ignoreNotMounted(unix.Unmount(dir, unix.MNT_DETACH)), os.Remove(dir)) }
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("mount secret: %w", err), release())
		}
	}()
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	opts := []string{"bind", "ro", "nosuid", "nodev"}
	if s.Mode&0o111 == 0 {
		flags |= unix.MS_NOEXEC
		opts = append(opts, "noexec")
	}
	// Memory is counted in pages, and the file system itself takes one.
	const page = 4096
	size := (len(s.Data)/page + 2) * page
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, "secret")
	if err := s.write(file); err != nil {
		return nil, nil, err
	}
	return []mount.Mount{{Type: "bind", Source: file, Options: opts}}, release, nil
}

func (s secret) write(file string) error {
	if err := os.WriteFile(file, s.Data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(file, int(s.UID), int(s.GID)); err != nil {
		return err
	}
	return os.Chmod(file, os.FileMode(s.Mode&0o777))
}

func ignoreNotMounted(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
