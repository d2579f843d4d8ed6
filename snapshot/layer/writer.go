//go:build linux

package layer

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	xattrRecord    = "SCHILY.xattr."
)

// writeBuffer is how much of an archive is gathered before it goes on. Contents of files are read
// into it.
const writeBuffer = 256 << 10

// writer writes the entries of one archive. Names are slash-separated and relative.
type writer struct {
	buf *bufio.Writer
	// links maps a file with several names to the first one written.
	links map[inode]string
}

type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode {
	return inode{uint64(st.Dev), st.Ino} // Dev is not 64 bits wide everywhere
}

func newWriter(w io.Writer) *writer {
	return &writer{buf: bufio.NewWriterSize(w, writeBuffer), links: map[inode]string{}}
}

// tarBlock is what headers and contents are padded to.
const tarBlock = 512

var zeros [2 * tarBlock]byte

// close writes the two empty blocks that end an archive.
func (w *writer) close() error {
	if _, err := w.buf.Write(zeros[:]); err != nil {
		return err
	}
	return w.buf.Flush()
}

// header writes a header. The content, if any, is for the caller to write and pad: a writer of
// archives would want to have it copied to it.
func (w *writer) header(hdr *tar.Header) error {
	if err := tar.NewWriter(w.buf).WriteHeader(hdr); err != nil {
		return fmt.Errorf("write header of %s: %w", hdr.Name, err)
	}
	return nil
}

// Remove writes that name is gone.
func (w *writer) Remove(name string) error {
	return w.header(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)),
		ModTime:  time.Unix(0, 0),
		Format:   tar.FormatPAX,
	})
}

// Add writes the file, link, device or folder (without what is in it) that is at file on disk.
// Sockets have no form in an archive and are left out.
func (w *writer) Add(name, file string, st *unix.Stat_t) error {
	hdr := &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0),
		Format:  tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR:
		hdr.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		hdr.Typeflag = tar.TypeBlock
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil
	}
	if hdr.Typeflag == tar.TypeChar || hdr.Typeflag == tar.TypeBlock {
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if st.Nlink > 1 && hdr.Typeflag != tar.TypeDir {
		id := inodeOf(st)
		if first, ok := w.links[id]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return w.header(hdr)
		}
		w.links[id] = name
	}
	if err := w.addXattrs(hdr, file); err != nil {
		return err
	}
	if err := w.header(hdr); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeReg && hdr.Size > 0 {
		return w.content(name, file, hdr.Size)
	}
	return nil
}

func (w *writer) addXattrs(hdr *tar.Header, file string) error {
	attrs, err := xattrs(file)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[xattrRecord+k] = v
	}
	return nil
}

func (w *writer) content(name, file string, size int64) error {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	if err != nil {
		// O_NOATIME is for the owner only.
		if f, err = os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW, 0); err != nil {
			return err
		}
	}
	defer f.Close()
	n, err := w.buf.ReadFrom(io.LimitReader(f, size))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("write %s: file became shorter while it was read", name)
	}
	_, err = w.buf.Write(zeros[:-size&(tarBlock-1)])
	return err
}

func lstat(file string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	return &st, nil
}
