// Package catalog finds which packages are installed in a file tree: from the databases of dpkg, apk
// and rpm, the build information in Go programs, and the metadata that npm and Python installers
// leave. It reads, and runs nothing.
//
// The tree may be anybody's: it is read through a root that links do not lead out of, files that are
// none of the expected form are told and passed over, and what is kept in memory is bounded by Limits.
package catalog

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // SPDX wants it of every file
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Type is what a package is of, in the words of package urls.
type Type string

// The types that are found.
const (
	Deb    Type = "deb"
	APK    Type = "apk"
	RPM    Type = "rpm"
	Go     Type = "golang"
	NPM    Type = "npm"
	Python Type = "pypi"
)

// Package is an installed package.
type Package struct {
	Type Type
	// Name is in full: the path of a Go module, "@scope/name" of npm.
	Name string
	// Version may be empty if it is not known.
	Version string
	// Arch is that of the package itself, if it says so.
	Arch string
	// Epoch is that of an rpm; empty for none.
	Epoch string
	// Source is the source package that this one was built of, if it has another name.
	Source string
	// License is what the package says of itself, in whatever form.
	License string
	// Evidence is the path of the file that the package was found in, without a leading slash.
	Evidence string
}

// File is a file that packages were found in.
type File struct {
	// Path has no leading slash.
	Path         string
	SHA1, SHA256 string
}

// System is the distribution of a tree; empty if it is none.
type System struct {
	ID, VersionID, Name string
}

// Inventory is what was found.
type Inventory struct {
	System System
	// Packages are in order, each one once.
	Packages []Package
	// Files are those that are the evidence of packages, by path.
	Files []File
	// Unread says of files what is wrong with them: packages may be missing.
	Unread []string
}

// Limits bound what a tree may have; zero values are the defaults.
type Limits struct {
	// Entries is how many files and folders there may be, 10 million by default.
	Entries int
	// Packages is how many packages there may be, 100,000 by default.
	Packages int
}

const (
	defaultEntries  = 10_000_000
	defaultPackages = 100_000
	// maxUnread is how many files are told that could not be read.
	maxUnread = 100
)

// Scan reads a tree. It is an error if the tree is larger than the limits or cannot be walked.
func Scan(root *os.Root, limits Limits) (*Inventory, error) {
	s := &scan{
		root: root,
		limits: Limits{
			Entries:  cmp.Or(limits.Entries, defaultEntries),
			Packages: cmp.Or(limits.Packages, defaultPackages),
		},
	}
	s.found.System = readSystem(root)
	if err := s.walk(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.found.Packages, compare)
	s.found.Packages = slices.Compact(s.found.Packages)
	slices.SortFunc(s.found.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	slices.Sort(s.found.Unread)
	return &s.found, nil
}

func compare(a, b Package) int {
	return cmp.Or(
		cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch),
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Evidence, b.Evidence), cmp.Compare(a.Source, b.Source), cmp.Compare(a.License, b.License),
	)
}

// scan is a walk through a tree.
type scan struct {
	root    *os.Root
	limits  Limits
	entries int
	found   Inventory
}

var errTooMany = errors.New("too many packages")

// read has a file parsed, and notes what is found in it.
func (s *scan) read(path string, parse parser) error {
	f, err := s.root.Open(path)
	if err != nil {
		s.unread(path, err)
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		s.unread(path, err)
		return nil
	}
	content := io.NewSectionReader(f, 0, st.Size())
	before := len(s.found.Packages)
	err = parse(content, func(p Package) error {
		if len(s.found.Packages) >= s.limits.Packages {
			return errTooMany
		}
		p.Evidence = path
		if len(p.License) > maxField {
			p.License = "" // a text and not a name
		}
		if p.valid() {
			s.found.Packages = append(s.found.Packages, p)
		} else {
			s.unread(path, fmt.Errorf("a package has no name or one that is too long: %.40q", p.Name))
		}
		return nil
	})
	if errors.Is(err, errTooMany) {
		return fmt.Errorf("the tree has more than %d packages", s.limits.Packages)
	}
	if err != nil {
		s.unread(path, err)
	}
	if len(s.found.Packages) == before {
		return nil
	}
	file, err := sum(content)
	if err != nil {
		s.unread(path, err)
		return nil
	}
	file.Path = path
	s.found.Files = append(s.found.Files, file)
	return nil
}

// maxField is how long anything that is told of a package may be, in bytes.
const maxField = 1024

// valid reports whether a package can be told.
func (p Package) valid() bool {
	for _, field := range []string{p.Name, p.Version, p.Arch, p.Epoch, p.Source, p.License} {
		if len(field) > maxField {
			return false
		}
	}
	return p.Name != ""
}

// unread notes a file that could not be read or understood.
func (s *scan) unread(path string, err error) {
	switch len(s.found.Unread) {
	case maxUnread + 1:
	case maxUnread:
		s.found.Unread = append(s.found.Unread, "and more")
	default:
		s.found.Unread = append(s.found.Unread, fmt.Sprintf("%.512q: %.512v", path, err))
	}
}

// sum returns the digests of a file from its beginning.
func sum(f io.ReadSeeker) (File, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return File{}, err
	}
	one, two := sha1.New(), sha256.New() //nolint:gosec // see the import
	if _, err := io.Copy(io.MultiWriter(one, two), f); err != nil {
		return File{}, err
	}
	return File{SHA1: hex.EncodeToString(one.Sum(nil)), SHA256: hex.EncodeToString(two.Sum(nil))}, nil
}
