package checksum

import (
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// Sum is a sha256 digest.
type Sum [sha256.Size]byte

// Entry is what a digest covers of one file.
type Entry struct {
	Kind Kind
	// Header covers everything but the name and the bytes; see HeaderOf.
	Header Sum
	// Content is the digest of the bytes of a regular file; not known if Hashed is false.
	Content Sum
	Hashed  bool
	// Link is the target of a symbolic link.
	Link string
}

// Kind is the type of a file, as far as digests care.
type Kind byte

// The kinds of files.
const (
	File Kind = iota
	Dir
	Symlink
	Other
)

// KindOf returns the kind of a mode.
func KindOf(m fs.FileMode) Kind {
	switch {
	case m.IsRegular():
		return File
	case m.IsDir():
		return Dir
	case m&fs.ModeSymlink != 0:
		return Symlink
	default:
		return Other
	}
}

// HeaderOf digests the metadata of a file: mode, owner, size, link target, device and extended
// attributes. A hard link is described like the file that it is a name of.
func HeaderOf(st *fstypes.Stat) Sum {
	mode := fs.FileMode(st.Mode)
	b := make([]byte, 0, 64)
	b = binary.AppendUvarint(b, uint64(mode))
	b = binary.AppendUvarint(b, uint64(st.Uid))
	b = binary.AppendUvarint(b, uint64(st.Gid))
	switch KindOf(mode) {
	case File:
		b = binary.AppendVarint(b, st.Size)
	case Symlink:
		b = appendString(b, st.Linkname)
	case Other:
		b = binary.AppendVarint(b, st.Devmajor)
		b = binary.AppendVarint(b, st.Devminor)
	case Dir:
	}
	if len(st.Xattrs) == 0 {
		return sha256.Sum256(b)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Xattrs)) {
		if !relevantXattr(name) {
			continue
		}
		b = appendString(b, name)
		b = appendString(b, string(st.Xattrs[name]))
	}
	return sha256.Sum256(b)
}

// relevantXattr leaves out what a file system adds by itself.
func relevantXattr(name string) bool {
	return name == "security.capability" || !strings.HasPrefix(name, "security.") &&
		!strings.HasPrefix(name, "system.") && !strings.HasPrefix(name, "trusted.")
}

// EntryOf returns the entry of a file, without the digest of its bytes.
func EntryOf(st *fstypes.Stat) Entry {
	e := Entry{Kind: KindOf(fs.FileMode(st.Mode)), Header: HeaderOf(st)}
	if e.Kind == Symlink {
		e.Link = st.Linkname
	}
	return e
}

// lookup reads the entry of a file of the host.
func lookup(path string) (Entry, error) {
	st, err := fsutil.Stat(path)
	if err != nil {
		return Entry{}, err
	}
	if st.Linkname == "" && fs.FileMode(st.Mode)&fs.ModeSymlink != 0 {
		if st.Linkname, err = os.Readlink(path); err != nil {
			return Entry{}, err
		}
	}
	return EntryOf(st), nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// own digests an entry without what lies below it.
func (e Entry) own() Sum {
	b := make([]byte, 0, 1+2*len(Sum{}))
	b = append(append(b, byte(e.Kind)), e.Header[:]...)
	if e.Kind == File {
		b = append(b, e.Content[:]...)
	}
	return sha256.Sum256(b)
}
