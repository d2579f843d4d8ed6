package filesync

import (
	"bytes"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// inFile is a file that is being received. Once asked for, it belongs to one writer.
type inFile struct {
	id   uint32
	st   *types.Stat
	kind fsutil.ChangeKind
	// same says that the destination seems to have the file: it is written only if it has not.
	same bool

	// have is what the destination has, of which the first matched bytes have come again.
	have    *os.File
	matched int64

	// writer is the one that the file belongs to, once begun.
	begun  bool
	writer int

	dir  *dirHandle
	name string
	f    *handle
	temp string
	hash hash.Hash
}

// chunk is a piece of a file.
type chunk struct {
	file *inFile
	data []byte
	last bool
}

// fileWriters is how many files are written at once.
const fileWriters = 4

// writeQueue is how many messages may wait for one writer.
const writeQueue = 64

// writeBudget bounds the bytes that wait for all writers.
const writeBudget = 8 << 20

// writeFiles writes what comes in until the channel is closed, and removes the files that are
// not complete then. After a failure it goes on taking chunks and drops them, so that nobody
// waits.
func (r *receiver) writeFiles(in <-chan []chunk) {
	open := map[*inFile]struct{}{}
	failed := false
	for chunks := range in {
		size, complete := 0, 0
		for _, c := range chunks {
			size += len(c.data)
			if failed {
				continue
			}
			if err := r.writeChunk(c); err != nil {
				failed = true
				r.fail(err)
			}
			if c.file.f != nil || c.file.have != nil {
				open[c.file] = struct{}{}
			} else {
				delete(open, c.file)
			}
			if c.last {
				complete++
			}
		}
		r.budget.give(size)
		if !failed {
			r.received(complete)
		}
	}
	for f := range open {
		f.discard()
	}
}

func (r *receiver) writeChunk(c chunk) error {
	file := c.file
	if file.f == nil && file.have == nil {
		if err := file.open(r.tree, r.opt.hasher); err != nil {
			return err
		}
	}
	if file.have != nil {
		if same, err := file.compare(c); err != nil || same {
			return err
		}
		if err := file.replace(r.tree); err != nil {
			return err
		}
	}
	if len(c.data) > 0 {
		if _, err := file.f.Write(c.data); err != nil {
			return err
		}
		if file.hash != nil {
			file.hash.Write(c.data)
		}
	}
	if !c.last {
		return nil
	}
	if err := file.finish(); err != nil {
		return err
	}
	return r.notify(file.kind, file.st, file.hash)
}

func (f *inFile) open(t *tree, hasher Hasher) (err error) {
	if hasher != nil {
		if f.hash, err = hasher(f.st); err != nil {
			return err
		}
	}
	if f.same {
		f.have, err = t.root.Open(filepath.FromSlash(f.st.Path))
		return err
	}
	return f.create(t)
}

func (f *inFile) create(t *tree) (err error) {
	if f.dir, f.name, err = t.at(f.st.Path); err != nil {
		return err
	}
	f.f, f.temp, err = f.dir.create(f.name, modeOf(f.st).Perm())
	if err != nil {
		f.dir.release()
		f.dir = nil
	}
	return err
}

// compare reports whether a piece is what the destination has at its place. The last one ends the
// file if it is.
func (f *inFile) compare(c chunk) (same bool, err error) {
	there := make([]byte, len(c.data))
	if _, err := io.ReadFull(f.have, there); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, err
	}
	if !bytes.Equal(there, c.data) {
		return false, nil
	}
	if c.last {
		if n, err := f.have.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			return false, err
		}
		defer func() { f.have = nil }()
		return true, f.have.Close()
	}
	if f.hash != nil {
		f.hash.Write(c.data)
	}
	f.matched += int64(len(c.data))
	return true, nil
}

// replace begins to write a file anew, with what the destination has of it.
func (f *inFile) replace(t *tree) error {
	have := f.have
	f.have = nil
	defer have.Close()
	if err := f.create(t); err != nil {
		return err
	}
	_, err := io.Copy(f.f, io.NewSectionReader(have, 0, f.matched))
	return err
}

// finish gives the file its metadata and its name.
func (f *inFile) finish() error {
	name := f.name
	if f.temp != "" {
		name = f.temp
	}
	err := applyFile(f.dir, name, f.f, f.st)
	if cerr := f.f.Close(); err == nil {
		err = cerr
	}
	f.f = nil
	if err == nil && f.temp != "" {
		err = f.dir.root.Rename(f.temp, f.name)
	}
	if err != nil {
		_ = f.dir.root.Remove(name)
	}
	f.dir.release()
	f.dir = nil
	return err
}

// discard removes what there is of an unfinished file.
func (f *inFile) discard() {
	if f.have != nil {
		f.have.Close()
		return
	}
	f.f.Close()
	name := f.name
	if f.temp != "" {
		name = f.temp
	}
	_ = f.dir.root.Remove(name)
	f.dir.release()
}

// digestOf returns the digest of a finished hash; empty for none.
func digestOf(h hash.Hash) digest.Digest {
	if h == nil {
		return ""
	}
	return digest.NewDigest(digest.SHA256, h)
}

// makeEntry makes what is neither a regular file nor a directory. It reports false if that is
// not possible here.
func (t *tree) makeEntry(st *types.Stat) (bool, error) {
	d, name, err := t.at(st.Path)
	if err != nil {
		return false, err
	}
	defer d.release()
	if modeOf(st)&fs.ModeSymlink != 0 {
		target := filepath.FromSlash(st.Linkname)
		if err := d.make(name, func() error { return d.root.Symlink(target, name) }, keepNothing); err != nil {
			return false, err
		}
	} else if ok, err := makeSpecial(d, name, st); err != nil || !ok {
		return false, err
	}
	return true, applyOther(d, name, st)
}

// makeDir makes a directory that can be filled; finishDir gives it the mode that it ends with.
func (t *tree) makeDir(st *types.Stat) error {
	if err := t.mkdir(st.Path); err != nil {
		return err
	}
	d, err := t.dir(st.Path)
	if err != nil {
		return err
	}
	defer d.release()
	if writable := st.Mode | 0o700; writable != st.Mode {
		st = st.Clone()
		st.Mode = writable
	}
	return applyDir(d, st)
}

// finishDir sets what filling a directory changes or needs otherwise.
func (t *tree) finishDir(st *types.Stat) error {
	d, name, err := t.at(st.Path)
	if err != nil {
		return err
	}
	defer d.release()
	if st.Mode|0o700 != st.Mode {
		if err := d.root.Chmod(name, modeOf(st)); err != nil {
			return err
		}
	}
	return applyTime(d, name, st)
}

// link makes a hard link, unless it is there already.
func (t *tree) link(st *types.Stat) error {
	target, path := filepath.FromSlash(st.Linkname), filepath.FromSlash(st.Path)
	info, err := t.root.Lstat(target)
	if err != nil {
		return protocolErrorf("hard link %q to %q, which is not there", st.Path, st.Linkname)
	}
	if info.IsDir() || info.Mode()&fs.ModeSymlink != 0 {
		return protocolErrorf("hard link %q to %q, which is no file", st.Path, st.Linkname)
	}
	if have, err := t.root.Lstat(path); err == nil {
		if os.SameFile(have, info) {
			return nil
		}
		if err := t.remove(st.Path); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.changing(); err != nil {
		return err
	}
	return t.root.Link(target, path)
}
