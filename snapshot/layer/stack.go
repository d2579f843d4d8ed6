//go:build linux

package layer

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stack is a tree on disk as folders laid over each other, the uppermost first, as overlayfs shows
// them. It is read without a mount, so that its files can be linked. If Xattrs is empty nothing in
// it is a mark: it is a plain tree of one folder. No folders are the empty tree.
type Stack struct {
	Dirs   []string
	Xattrs XattrPrefix
}

// File is something in a Stack.
type File struct {
	// Name is its name in its folder.
	Name string
	// Path is where it is on disk.
	Path string
	Stat *unix.Stat_t
	// dirs are the folders of the stack that a folder is seen in.
	dirs []string
}

// IsDir reports whether it is a folder.
func (f *File) IsDir() bool { return f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// read returns what is seen in a folder of the stack, sorted by name. dirs are the places where that
// folder is.
func (s Stack) read(dirs []string) ([]File, error) {
	var files []File
	seen := map[string]bool{}
	for i, dir := range dirs {
		names, err := readNames(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if len(dirs) > 1 {
				if seen[name] {
					continue
				}
				seen[name] = true
			}
			f, err := s.file(dirs[i:], name)
			if err != nil {
				return nil, err
			}
			if f != nil {
				files = append(files, *f)
			}
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// file returns what is called name in a folder of the stack, nil if nothing is. The first of dirs
// has the name, if anything is to be found.
func (s Stack) file(dirs []string, name string) (*File, error) {
	f := &File{Name: name, Path: filepath.Join(dirs[0], name)}
	var err error
	if f.Stat, err = lstat(f.Path); err != nil {
		return nil, err
	}
	if s.isWhiteout(f.Stat) {
		return nil, nil
	}
	if !f.IsDir() {
		return f, nil
	}
	f.dirs = append(f.dirs, f.Path)
	for _, dir := range dirs[1:] {
		if s.opaque(f.dirs[len(f.dirs)-1]) {
			break
		}
		below := filepath.Join(dir, name)
		st, err := lstat(below)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
		f.dirs = append(f.dirs, below)
	}
	return f, nil
}

func (s Stack) isWhiteout(st *unix.Stat_t) bool {
	return s.Xattrs != "" && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func (s Stack) opaque(dir string) bool { return s.Xattrs != "" && s.Xattrs.IsOpaque(dir) }

// Finder looks up names in a Stack, fast if those of one folder come together. It is not safe for
// concurrent use.
type Finder struct {
	stack Stack
	// folder was looked up last; dirs is where it is, empty if it is nowhere.
	folder string
	dirs   []string
}

// NewFinder returns a Finder of what is in s.
func NewFinder(s Stack) *Finder { return &Finder{stack: s, folder: ".", dirs: s.Dirs} }

// Find returns what is called name, a slash-separated path, nil if nothing is. Symbolic links on the
// way are not followed: there is nothing behind them.
func (f *Finder) Find(name string) (*File, error) {
	folder, base := path.Split(path.Clean(name))
	if folder = path.Clean(folder); folder != f.folder {
		dirs := f.stack.Dirs
		if folder != "." {
			dirs = nil
			at, err := f.walk(folder)
			if err != nil {
				return nil, err
			}
			if at != nil && at.IsDir() {
				dirs = at.dirs
			}
		}
		f.folder, f.dirs = folder, dirs
	}
	return f.in(f.dirs, base)
}

// walk looks up a path from the root.
func (f *Finder) walk(name string) (*File, error) {
	at := &File{dirs: f.stack.Dirs}
	for part := range strings.SplitSeq(name, "/") {
		var err error
		if at, err = f.in(at.dirs, part); at == nil || err != nil {
			return nil, err
		}
	}
	return at, nil
}

// in looks up one name in a folder.
func (f *Finder) in(dirs []string, name string) (*File, error) {
	for i, dir := range dirs {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return f.stack.file(dirs[i:], name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return nil, nil
}
