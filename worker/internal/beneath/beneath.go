// Package beneath opens and makes things in a file tree that somebody else wrote, as if the tree's
// top was "/": absolute links, "..", and links that lead to links are resolved within the tree and
// never leave it, also while the tree is being changed. It knows nothing of what the files mean.
//
// It differs from os.Root, which refuses absolute links: trees of containers are full of them.
// Reading goes through openat2; where path elements may have to be made, elements are walked one
// by one with handles. Errors name paths as they are seen from within the tree, so that no path of
// the host reaches a user. Opening never blocks on a FIFO or device.
package beneath

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may lead through, as in the kernel's own rule but
// with room for trees that are deeper than a system's.
const maxLinks = 255

// Root is an open directory in whose tree paths are resolved. It is safe for concurrent use.
type Root struct{ f *os.File }

// Open opens the directory dir of the host.
func Open(dir string) (*Root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{f: os.NewFile(uintptr(fd), dir)}, nil
}

// Close ends the use of the root. Handles that were opened through it stay open.
func (r *Root) Close() error { return r.f.Close() }

// Clean returns p as an absolute clean path of the tree. ".." at the top is the top.
func Clean(p string) string { return path.Join("/", p) }

// OpenFile opens p with flags, following links. O_CLOEXEC is added; so is O_NONBLOCK unless the
// flags have O_PATH, so that no FIFO blocks. The caller closes the file.
func (r *Root) OpenFile(p string, flags int, perm uint32) (*os.File, error) {
	return r.openat2("open", p, flags, perm, unix.RESOLVE_IN_ROOT)
}

// Handle opens p for reference only (O_PATH). nofollow opens the link itself if p is one; links in
// front of the last element are always followed.
func (r *Root) Handle(p string, nofollow bool) (*os.File, error) {
	flags := unix.O_PATH
	if nofollow {
		flags |= unix.O_NOFOLLOW
	}
	return r.openat2("open", p, flags, 0, unix.RESOLVE_IN_ROOT)
}

func (r *Root) openat2(op, p string, flags int, perm uint32, resolve uint64) (*os.File, error) {
	p = Clean(p)
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(perm)
	}
	for {
		fd, err := unix.Openat2(int(r.f.Fd()), "."+p, &how)
		// EAGAIN: something was renamed while ".." was resolved; the kernel asks to try again.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: op, Path: p, Err: err}
		}
		return os.NewFile(uintptr(fd), p), nil
	}
}

// ReadFile returns the contents of the regular file p, following links. A file of more than limit
// bytes is an error, and so is anything that is not a regular file.
func (r *Root) ReadFile(p string, limit int64) ([]byte, error) {
	f, err := r.OpenFile(p, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: Clean(p), Err: errors.New("not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &fs.PathError{Op: "read", Path: Clean(p), Err: unix.EFBIG}
	}
	return data, nil
}

// Parent opens the directory that holds the last element of p, following links in front of it, and
// returns it with the element's name. The name is "." if p is the top.
func (r *Root) Parent(p string) (*os.File, string, error) {
	p = Clean(p)
	if p == "/" {
		f, err := r.Handle("/", false)
		return f, ".", err
	}
	f, err := r.openat2("open", path.Dir(p), unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_IN_ROOT)
	return f, path.Base(p), err
}

// Resolve returns the path of what p leads to, without links. What is not there is taken to be no
// link, so that the last elements of the result may be missing.
func (r *Root) Resolve(p string) (string, error) {
	at, links := "/", 0
	todo := elements(p)
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			at = path.Dir(at)
			continue
		}
		target, err := r.readlink(path.Join(at, name))
		if err != nil {
			return "", err
		}
		if target == "" {
			at = path.Join(at, name)
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "readlink", Path: path.Join(at, name), Err: unix.ELOOP}
		}
		if path.IsAbs(target) {
			at = "/"
		}
		todo = append(elements(target), todo...)
	}
	return at, nil
}

// readlink returns the target of the link at p, which has no links in front of its last element;
// empty if there is no link.
func (r *Root) readlink(p string) (string, error) {
	f, err := r.Handle(p, true)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return "", nil
	case err != nil:
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: p, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	return readlinkHandle(f)
}

// Mkdir makes the directory name in parent. p is its path in the tree, for errors.
type Mkdir func(parent *os.File, name, p string) error

// WithMode returns a Mkdir that makes directories with the permissions perm, whatever the umask.
func WithMode(perm uint32) Mkdir {
	return func(parent *os.File, name, p string) error {
		err := unix.Mkdirat(int(parent.Fd()), name, perm)
		if err == nil {
			err = unix.Fchmodat(int(parent.Fd()), name, perm, 0)
		}
		if err != nil {
			return &fs.PathError{Op: "mkdir", Path: p, Err: err}
		}
		return nil
	}
}

// MkdirAll makes the directories of p that are missing with mkdir, following links, also those to
// places that do not exist yet. It returns a handle (O_PATH) on the last one and its path without
// links. An element that is no directory is ENOTDIR naming that element.
func (r *Root) MkdirAll(p string, mkdir Mkdir) (*os.File, string, error) {
	w := &walk{root: r}
	if err := w.reset(nil); err != nil {
		return nil, "", err
	}
	todo := elements(p)
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		target, err := w.step(name, mkdir)
		if err != nil {
			w.close()
			return nil, "", err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			w.close()
			return nil, "", &fs.PathError{Op: "mkdir", Path: w.path(name), Err: unix.ELOOP}
		}
		if path.IsAbs(target) {
			if err := w.reset(nil); err != nil {
				return nil, "", err
			}
		}
		todo = append(elements(target), todo...)
	}
	return w.dir, w.path(""), nil
}

// walk stands in a directory of the tree; names leads there from the top and has no links.
type walk struct {
	root  *Root
	dir   *os.File
	names []string
}

// path returns the path of name in the directory, of the directory itself if name is empty.
func (w *walk) path(name string) string {
	return "/" + path.Join(path.Join(w.names...), name)
}

// reset goes to names. On failure the walk has no open directory.
func (w *walk) reset(names []string) error {
	w.close()
	d, err := w.root.openat2("mkdir", path.Join(names...), unix.O_PATH|unix.O_DIRECTORY, 0,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	w.dir, w.names = d, names
	return err
}

func (w *walk) close() {
	if w.dir != nil {
		w.dir.Close()
		w.dir = nil
	}
}

// step goes to the element name of the directory. If it is a link the walk stays and its target is
// returned. An element that is not there is made.
func (w *walk) step(name string, mkdir Mkdir) (target string, err error) {
	if name == ".." {
		return "", w.reset(w.names[:max(0, len(w.names)-1)])
	}
	fd, err := openHandle(w.dir, name)
	if errors.Is(err, unix.ENOENT) {
		// EEXIST: somebody else was faster.
		if err := mkdir(w.dir, name, w.path(name)); err != nil && !errors.Is(err, unix.EEXIST) {
			return "", err
		}
		fd, err = openHandle(w.dir, name)
	}
	if err != nil {
		return "", &fs.PathError{Op: "mkdir", Path: w.path(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), w.path(name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return "", &fs.PathError{Op: "stat", Path: w.path(name), Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.dir.Close()
		w.dir, w.names = f, append(w.names, name)
		return "", nil
	case unix.S_IFLNK:
		defer f.Close()
		return readlinkHandle(f)
	}
	f.Close()
	return "", &fs.PathError{Op: "mkdir", Path: w.path(name), Err: unix.ENOTDIR}
}

func openHandle(dir *os.File, name string) (int, error) {
	return unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func readlinkHandle(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: f.Name(), Err: err}
	}
	if n == 0 {
		return "", &fs.PathError{Op: "readlink", Path: f.Name(), Err: unix.ENOENT}
	}
	return string(buf[:n]), nil
}

// elements splits p, leaving out what stands for nothing. ".." stays: what it leads to depends on
// the links in front of it.
func elements(p string) []string {
	var out []string
	for e := range strings.SplitSeq(p, "/") {
		if e != "" && e != "." {
			out = append(out, e)
		}
	}
	return out
}
