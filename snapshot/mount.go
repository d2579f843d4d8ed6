//go:build linux

package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// MountTemp makes a tree visible in a folder of the host, for code that has to look into it, and
// returns the folder and the function that ends that; release may be called more than once. A tree
// that is one plain folder on disk is returned as it is, without a mount: the caller must not
// write into a tree that it asked for read-only. What a crash leaves mounted is unmounted when the
// Store that the tree came from is opened again.
func MountTemp(m Mountable) (dir string, release func() error, err error) {
	mounts, done, err := m.Mount()
	if err != nil {
		return "", nil, err
	}
	if len(mounts) == 1 && isBind(mounts[0]) {
		if _, err := os.Lstat(mounts[0].Source); err != nil {
			return "", nil, errors.Join(err, done())
		}
		return mounts[0].Source, once(done), nil
	}
	parent := os.TempDir()
	if d, ok := m.(interface{ MountDir() string }); ok {
		parent = d.MountDir()
	}
	dir, err = mountBelow(parent, mounts)
	if err != nil {
		return "", nil, errors.Join(err, done())
	}
	return dir, once(func() error {
		return errors.Join(unmount(dir), done())
	}), nil
}

// WithMount makes a tree visible as MountTemp does, for the time of fn.
func WithMount(m Mountable, fn func(dir string) error) (err error) {
	dir, release, err := MountTemp(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return fn(dir)
}

func once(f func() error) func() error {
	return sync.OnceValue(f)
}

func isBind(m mount.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// mountBelow mounts in a new folder below parent.
func mountBelow(parent string, mounts []mount.Mount) (string, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "buildkit-mount-")
	if err != nil {
		return "", err
	}
	if err := mount.All(mounts, dir); err != nil {
		return "", errors.Join(fmt.Errorf("mount a snapshot: %w", err), unmount(dir))
	}
	return dir, nil
}

// unmount ends all mounts on dir and removes it. Something that still uses the tree does not
// keep it mounted for others.
func unmount(dir string) error {
	err := mount.UnmountAll(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = mount.UnmountAll(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	// Never RemoveAll: if the mount is still there that would empty the tree.
	if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// cleanMounts ends every mount below dir and removes the folders.
func cleanMounts(dir string) error {
	resolved, err := filepath.EvalSymlinks(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(resolved))
	if err != nil {
		return fmt.Errorf("read mounts below %s: %w", resolved, err)
	}
	slices.SortFunc(mounts, func(a, b *mountinfo.Info) int {
		return strings.Compare(b.Mountpoint, a.Mountpoint) // the deepest first
	})
	for _, m := range mounts {
		if m.Mountpoint == resolved {
			continue // put there by the owner of the machine
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err}
		}
	}
	entries, err := os.ReadDir(resolved)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(resolved, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
