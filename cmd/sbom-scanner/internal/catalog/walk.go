package catalog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// parser reads one file and hands on the packages that it tells of, until add fails.
type parser func(f *io.SectionReader, add func(Package) error) error

// batch is how many entries of a folder are read at a time.
const batch = 1024

// maxPath is how long a path may be, in bytes: deeper folders are passed over.
const maxPath = 4096

// walk goes through all folders of the tree, not following links.
func (s *scan) walk() error {
	stack := []string{"."}
	for len(stack) > 0 {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		var err error
		if stack, err = s.folder(dir, stack); err != nil {
			return err
		}
	}
	return nil
}

// folder reads the files of one folder and appends the folders in it to stack.
func (s *scan) folder(dir string, stack []string) ([]string, error) {
	d, err := s.root.Open(dir)
	if err != nil {
		if dir == "." {
			return nil, err
		}
		s.unread(dir, err)
		return stack, nil
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(batch)
		for _, e := range entries {
			if s.entries++; s.entries > s.limits.Entries {
				return nil, fmt.Errorf("the tree has more than %d files", s.limits.Entries)
			}
			name := path.Join(dir, e.Name())
			switch {
			case len(name) > maxPath:
				s.unread(name, errors.New("the path is too long"))
			case e.IsDir():
				stack = append(stack, name)
			case e.Type().IsRegular():
				if err := s.file(name, e); err != nil {
					return nil, err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return stack, nil
		}
		if err != nil {
			s.unread(dir, err)
			return stack, nil
		}
	}
}

// file reads a file if its name or its mode say that it may tell of packages.
func (s *scan) file(name string, e fs.DirEntry) error {
	if parse := parserOf(name); parse != nil {
		return s.read(name, parse)
	}
	info, err := e.Info()
	if err != nil {
		s.unread(name, err)
		return nil
	}
	if info.Mode()&0o111 != 0 && info.Size() > 0 {
		return s.read(name, parseGo)
	}
	return nil
}

// parserOf returns what reads a file of a name; nil if the name says nothing.
func parserOf(name string) parser {
	switch name {
	case "var/lib/dpkg/status":
		return parseDpkg
	case "lib/apk/db/installed", "usr/lib/apk/db/installed":
		return parseAPK
	case "var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite":
		return parseRPM
	case "var/lib/rpm/rpmdb.sqlite-wal", "usr/lib/sysimage/rpm/rpmdb.sqlite-wal", "usr/share/rpm/rpmdb.sqlite-wal":
		return unwritten
	case "var/lib/rpm/Packages", "usr/lib/sysimage/rpm/Packages", "usr/share/rpm/Packages":
		return parseBDB
	case "var/lib/rpm/Packages.db", "usr/lib/sysimage/rpm/Packages.db", "usr/share/rpm/Packages.db":
		return parseNDB
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case dir == "var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"):
		return parseDpkg
	case base == "package.json" && inModules(dir):
		return parseNPM
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info"),
		base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"),
		strings.HasSuffix(base, ".egg-info"):
		return parsePython
	}
	return nil
}

// inModules reports whether a folder is that of an installed npm package.
func inModules(dir string) bool {
	parent := path.Dir(dir)
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules"
}
