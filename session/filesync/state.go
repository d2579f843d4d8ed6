package filesync

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil/types"
)

// The state of a transfer is a version byte, the start of the transfer in ns since 1970 as a
// varint, and the description of every entry in walk order, each after its length as an uvarint,
// with the change token that it came with. A length of 0 ends it.
const stateVersion = 1

// maxStat bounds the description of an entry in bytes, as read from a state.
const maxStat = maxPacket

// maxPacket is the largest message of a session.
const maxPacket = 16 << 20

// stateWriter writes the state of a transfer.
type stateWriter struct {
	w   *bufio.Writer
	buf []byte
}

func newStateWriter(w io.Writer, start time.Time) *stateWriter {
	if w == nil {
		return nil
	}
	s := &stateWriter{w: bufio.NewWriterSize(w, 64<<10)}
	_, _ = s.w.Write(binary.AppendVarint([]byte{stateVersion}, start.UnixNano()))
	return s
}

// add adds the description of an entry. Errors are kept until finish.
func (s *stateWriter) add(st *types.Stat) error {
	if s == nil {
		return nil
	}
	n := st.SizeVT()
	if cap(s.buf) < n {
		s.buf = make([]byte, n*2)
	}
	b := s.buf[:n]
	if _, err := st.MarshalToSizedBufferVT(b); err != nil {
		return err
	}
	_, _ = s.w.Write(binary.AppendUvarint(nil, uint64(n)))
	_, _ = s.w.Write(b)
	return nil
}

func (s *stateWriter) finish() error {
	if s == nil {
		return nil
	}
	_ = s.w.WriteByte(0)
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("save state of transfer: %w", err)
	}
	return nil
}

// oldEntry is an entry of the destination as it was before the transfer.
type oldEntry struct {
	path string
	dir  bool
	// st is what the last transfer said of it, nil if that is not known.
	st *types.Stat
}

// oldTree gives the entries of the destination in walk order. Each must be dealt with before the
// next is asked for.
type oldTree interface {
	// next returns the next entry, nil at the end. It goes into the entry returned last only if
	// that is a directory and descend is set.
	next(descend bool) (*oldEntry, error)
}

// noTree is a destination of which nothing is to be known or removed.
type noTree struct{}

func (noTree) next(bool) (*oldEntry, error) { return nil, nil }

// stateReader reads a state as an oldTree.
type stateReader struct {
	r    *bufio.Reader
	buf  []byte
	last *oldEntry
	// racy is the modification time, in ns, from which on files may have changed unseen since
	// they were described, if there are no change tokens to tell.
	racy int64
}

// racyMargin is how much clocks and steps of modification times may be apart.
const racyMargin = 2 * time.Second

var errBadState = errors.New("invalid state of transfer")

func newStateReader(r io.Reader) (*stateReader, error) {
	s := &stateReader{r: bufio.NewReaderSize(r, 64<<10)}
	version, err := s.r.ReadByte()
	if err != nil || version != stateVersion {
		return nil, errBadState
	}
	start, err := binary.ReadVarint(s.r)
	if err != nil {
		return nil, errBadState
	}
	s.racy = start - int64(racyMargin)
	return s, nil
}

func (s *stateReader) next(descend bool) (*oldEntry, error) {
	for {
		e, err := s.read()
		if err != nil || e == nil {
			return nil, err
		}
		if s.last != nil && comparePaths(s.last.path, e.path) >= 0 {
			return nil, errBadState
		}
		if !descend && s.last != nil && s.last.dir && strings.HasPrefix(e.path, s.last.path+"/") {
			continue
		}
		s.last = e
		return e, nil
	}
}

func (s *stateReader) read() (*oldEntry, error) {
	n, err := binary.ReadUvarint(s.r)
	if err != nil || n > maxStat {
		return nil, errBadState
	}
	if n == 0 {
		return nil, nil
	}
	if err := s.fill(int(n)); err != nil {
		return nil, err
	}
	st := &types.Stat{}
	if err := st.UnmarshalVT(s.buf); err != nil || checkPath(st.Path) != nil {
		return nil, errBadState
	}
	return &oldEntry{path: st.Path, dir: st.IsDir(), st: st}, nil
}

// fill reads n bytes into the buffer, which grows only with what is there.
func (s *stateReader) fill(n int) error {
	const step = 64 << 10
	s.buf = s.buf[:0]
	for len(s.buf) < n {
		have := len(s.buf)
		s.buf = slices.Grow(s.buf, min(step, n-have))[:have+min(step, n-have)]
		if _, err := io.ReadFull(s.r, s.buf[have:]); err != nil {
			return errBadState
		}
	}
	return nil
}

// diskTree reads a directory as an oldTree. It reads what is in a directory at the moment that it
// goes into it, before a transfer adds to it.
type diskTree struct {
	tree  *tree
	todo  []*oldEntry // reversed
	last  *oldEntry
	begun bool
}

func (t *diskTree) next(descend bool) (*oldEntry, error) {
	switch {
	case !t.begun:
		t.begun = true
		if err := t.list(""); err != nil {
			return nil, err
		}
	case descend && t.last != nil && t.last.dir:
		if err := t.list(t.last.path); err != nil {
			return nil, err
		}
	}
	if len(t.todo) == 0 {
		t.last = nil
		return nil, nil
	}
	t.last = t.todo[len(t.todo)-1]
	t.todo = t.todo[:len(t.todo)-1]
	return t.last, nil
}

func (t *diskTree) list(p string) error {
	name := filepath.FromSlash(p)
	if p == "" {
		name = "."
	}
	entries, err := fs.ReadDir(t.tree.root.FS(), filepath.ToSlash(name))
	if err != nil {
		return err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		child := e.Name()
		if p != "" {
			child = p + "/" + child
		}
		t.todo = append(t.todo, &oldEntry{path: child, dir: e.IsDir()})
	}
	return nil
}

// unchanged reports whether a file of the destination is what st describes. racy is that of a
// stateReader, strangers that of ReceiveOpt.
func unchanged(old *oldEntry, st *types.Stat, racy int64, strangers bool) bool {
	if old.st == nil {
		return false
	}
	was, is := tokenOf(old.st), tokenOf(st)
	if !sameStat(old.st, st) {
		return false
	}
	if !hasContent(st) || st.Linkname != "" {
		return true
	}
	if is == nil {
		return st.ModTime < racy && (!strangers || st.ModTime%int64(time.Millisecond) != 0)
	}
	return len(is) > 0 && bytes.Equal(was, is)
}

// sameStat compares descriptions without change tokens.
func sameStat(a, b *types.Stat) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Linkname != b.Linkname ||
		a.Devmajor != b.Devmajor || a.Devminor != b.Devminor || a.ModTime != b.ModTime || len(a.Xattrs) != len(b.Xattrs) {
		return false
	}
	if !a.IsDir() && a.Size != b.Size {
		return false
	}
	for k, v := range a.Xattrs {
		if w, ok := b.Xattrs[k]; !ok || !bytes.Equal(v, w) {
			return false
		}
	}
	return true
}
