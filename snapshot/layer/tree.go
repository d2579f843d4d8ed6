//go:build linux

package layer

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tree opens folders below a root. Symbolic links on the way are followed within the root, as
// they would be after chroot.
type tree struct {
	root int
	// dir is the folder that was opened last, -1 for none: entries of one folder mostly come
	// together.
	dir     int
	dirName string
	// plain refuses to follow symbolic links.
	plain bool
	// made, if not nil, is told every folder that parent makes.
	made func(name string)
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.root)
}

// forget drops the folder opened last. It must be called when a folder may have been removed.
func (t *tree) forget() {
	if t.dir >= 0 {
		unix.Close(t.dir)
		t.dir = -1
	}
}

// openDir opens an existing folder. The caller closes it.
func (t *tree) openDir(name string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if t.plain {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	return unix.Openat2(t.root, name, how)
}

// openNoFollow opens an existing folder if its last part is not a symbolic link.
func (t *tree) openNoFollow(name string) (int, error) {
	return unix.Openat2(t.root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// parent opens a folder that entries are made in, and makes it if it is missing. It stays open
// until the next call.
func (t *tree) parent(name string) (int, error) {
	if t.dir >= 0 && t.dirName == name {
		return t.dir, nil
	}
	fd, err := t.openDir(name)
	if errors.Is(err, unix.ENOENT) {
		if err := t.mkdirAll(name); err != nil {
			return -1, err
		}
		fd, err = t.openDir(name)
	}
	if err != nil {
		return -1, fmt.Errorf("open folder %q: %w", name, err)
	}
	t.forget()
	t.dir, t.dirName = fd, name
	return fd, nil
}

// mkdirAll makes a folder and those on the way to it. A symbolic link on the way that leads to
// nothing has its target made, within the root.
func (t *tree) mkdirAll(name string) error {
	// As many links as the kernel follows.
	for range 40 {
		link, err := t.mkdirParts(name)
		if err != nil || link == "" {
			return err
		}
		name = link
	}
	return fmt.Errorf("make folder %q: %w", name, unix.ELOOP)
}

// mkdirParts makes the parts of name from left to right. If one is a symbolic link to nothing it
// stops and returns the path with that link replaced by its target.
func (t *tree) mkdirParts(name string) (link string, err error) {
	done := "."
	parts := strings.Split(name, "/")
	for i, part := range parts {
		dir, err := t.openDir(done)
		if err != nil {
			return "", fmt.Errorf("open folder %q: %w", done, err)
		}
		link, err := t.mkdirPart(dir, part, path.Join(done, part))
		unix.Close(dir)
		if err != nil {
			return "", fmt.Errorf("make folder %q: %w", path.Join(done, part), err)
		}
		if link != "" {
			if !path.IsAbs(link) {
				link = path.Join(done, link)
			}
			return clean(path.Join(link, path.Join(parts[i+1:]...))), nil
		}
		done = path.Join(done, part)
	}
	return "", nil
}

func (t *tree) mkdirPart(dir int, part, name string) (link string, err error) {
	err = unix.Mkdirat(dir, part, 0o755)
	if err == nil {
		if t.made != nil {
			t.made(name)
		}
		return "", unix.Fchmodat(dir, part, 0o755, 0)
	}
	if !errors.Is(err, unix.EEXIST) {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, part, buf)
	if errors.Is(err, unix.EINVAL) {
		return "", nil // not a link; a file is found out by who opens it as a folder
	}
	return string(buf[:n]), err
}

// procPath names something in an open folder for the calls that take paths only.
func procPath(dir int, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + base
}
