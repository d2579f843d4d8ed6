package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The format of a file, as bbolt has it since its version 1.0: pages of one size, of which the first two
// are metas. Each commit writes one of them in turn; the newer one that is whole counts. From it hangs
// a tree for each bucket, of branch and leaf pages. Numbers have the byte order of the machine.
const (
	magic   = 0xED0CDAED
	version = 2

	// A page begins with its number (8 bytes), its kind (2), the number of elements (2) and the number
	// of pages that it takes besides the first (4).
	headerSize = 16
	kindBranch = 0x01
	kindLeaf   = 0x02
	kindFree   = 0x10
	// An element is a place (4 bytes, from the element on), the length of a key (4) and the number of
	// a page (8) in a branch, and in a leaf flags (4), a place, the length of a key and that of a value (4).
	elementSize = 16
	bucketFlag  = 0x01
	// The value of a bucket begins with the number of its first page and a sequence (8 each). Without a
	// page the rest is one.
	bucketSize = 16
	// A meta has, after the header, the magic number, the version, the size of pages and flags (4 each),
	// the bucket of buckets, the page of free pages, the number of pages and of the commit (8 each) and a sum (8).
	metaSize = 64

	noFreePage = 1<<64 - 1
	// minPage and maxPage bound the size of pages, maxDepth that of trees: no tree that bbolt makes
	// of a file that fits on a disk is that deep.
	minPage, maxPage = 512, 1 << 20
	maxDepth         = 100
	// maxFreeInHeader is the count of free pages that means that the first of them is the count.
	maxFreeInHeader = 0xFFFF
)

// verify looks at every page that a bbolt file uses, without bbolt, which does not return from some of
// what a disk can do to a file: it ends the program. The error of a file that bbolt must not see is an
// ErrDamaged. What is in the values is not looked at.
func verify(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return nil // bbolt makes a new one of it
	}
	m, err := readMeta(f, st.Size())
	if err != nil || m == nil {
		return err
	}
	v := verifier{src: f, meta: *m, seen: make([]bool, min(m.pages, uint64(st.Size()/m.pageSize)+1))}
	if err := v.tree(m.root, 0, nil, nil); err != nil {
		return err
	}
	return v.freePages()
}

func damagedf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

type meta struct {
	pageSize    int64
	root        uint64
	free        uint64
	pages       uint64
	transaction uint64
}

// readMeta returns the meta that counts, nil if the file is of a version that bbolt will refuse.
func readMeta(src io.ReaderAt, size int64) (*meta, error) {
	first, known := metaAt(src, 0)
	if !known {
		return nil, nil
	}
	pageSize := int64(os.Getpagesize())
	if first != nil {
		pageSize = first.pageSize
	}
	second, known := metaAt(src, pageSize)
	switch {
	case !known:
		return nil, nil
	case first == nil && second == nil:
		return nil, damagedf("neither of its first two pages is whole")
	case size < 2*pageSize:
		return nil, damagedf("it has %d bytes", size)
	case first == nil || second != nil && second.transaction > first.transaction:
		return second, nil
	}
	return first, nil
}

// metaAt returns the meta of a page, nil if it is not whole; known is false if it is of another version.
func metaAt(src io.ReaderAt, off int64) (m *meta, known bool) {
	var b [headerSize + metaSize]byte
	if _, err := src.ReadAt(b[:], off); err != nil {
		return nil, true
	}
	d := b[headerSize:]
	sum := fnv.New64a()
	_, _ = sum.Write(d[:metaSize-8])
	if number32(d) != magic {
		return nil, true
	}
	if number32(d[4:]) != version {
		return nil, false
	}
	m = &meta{
		pageSize: int64(number32(d[8:])), root: number64(d[16:]), free: number64(d[32:]),
		pages: number64(d[40:]), transaction: number64(d[48:]),
	}
	if sum.Sum64() != number64(d[56:]) || m.pageSize < minPage || m.pageSize > maxPage {
		return nil, true
	}
	return m, true
}

func number16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func number32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func number64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }

type verifier struct {
	src  io.ReaderAt
	meta meta
	// seen are the pages that have a place in a tree: each has one.
	seen []bool
}

// page is one that has been read, with all its bytes.
type page struct {
	id    uint64
	kind  uint16
	count int
	data  []byte
}

func (v *verifier) read(id uint64) (*page, error) {
	head := make([]byte, v.meta.pageSize)
	if id < 2 || id >= uint64(len(v.seen)) || v.readAt(head, id) != nil {
		return nil, damagedf("page %d is missing", id)
	}
	p := parsePage(head)
	if p.id != id {
		return nil, damagedf("page %d says that it is page %d", id, p.id)
	}
	more := uint64(number32(head[12:]))
	if more >= uint64(len(v.seen))-id {
		return nil, damagedf("page %d says that it takes %d more", id, more)
	}
	for i := id; i <= id+more; i++ {
		if v.seen[i] {
			return nil, damagedf("page %d has two places", i)
		}
		v.seen[i] = true
	}
	if more > 0 {
		p.data = make([]byte, v.meta.pageSize*int64(more+1))
		if v.readAt(p.data, id) != nil {
			return nil, damagedf("page %d is cut off", id)
		}
	}
	return p, nil
}

func (v *verifier) readAt(b []byte, id uint64) error {
	_, err := v.src.ReadAt(b, int64(id)*v.meta.pageSize)
	return err
}

func parsePage(b []byte) *page {
	return &page{id: number64(b), kind: number16(b[8:]), count: int(number16(b[10:])), data: b}
}

// tree looks at a page and what is below it, whose keys are not less than low and less than high.
func (v *verifier) tree(id uint64, depth int, low, high []byte) error {
	if depth > maxDepth {
		return damagedf("page %d is %d pages deep", id, depth)
	}
	p, err := v.read(id)
	if err != nil {
		return err
	}
	switch p.kind {
	case kindLeaf:
		return v.leaf(p, depth, low, high)
	case kindBranch:
		return v.branch(p, depth, low, high)
	}
	return damagedf("page %d is of kind %x", id, p.kind)
}

func (v *verifier) branch(p *page, depth int, low, high []byte) error {
	keys, err := p.keys(0, low, high)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return damagedf("page %d is empty", p.id)
	}
	for i, key := range keys {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if err := v.tree(number64(p.data[headerSize+i*elementSize+8:]), depth+1, key, end); err != nil {
			return err
		}
	}
	return nil
}

// leaf looks at the elements of a leaf and at the buckets among them.
func (v *verifier) leaf(p *page, depth int, low, high []byte) error {
	keys, err := p.keys(4, low, high)
	if err != nil {
		return err
	}
	for i := range keys {
		at := headerSize + i*elementSize
		e := p.data[at:]
		flags, start, length := number32(e), uint64(at)+uint64(number32(e[4:]))+uint64(number32(e[8:])), uint64(number32(e[12:]))
		if flags&^bucketFlag != 0 || start+length > uint64(len(p.data)) {
			return damagedf("element %d of page %d is damaged", i, p.id)
		}
		if flags == 0 {
			continue
		}
		if err := v.bucket(p.data[start:start+length], p.id, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at a bucket, whose value is in page id.
func (v *verifier) bucket(value []byte, id uint64, depth int) error {
	if len(value) < bucketSize {
		return damagedf("a bucket in page %d is cut off", id)
	}
	if root := number64(value); root != 0 {
		return v.tree(root, depth, nil, nil)
	}
	value = value[bucketSize:]
	if len(value) < headerSize || depth > maxDepth {
		return damagedf("a bucket in page %d is cut off", id)
	}
	p := parsePage(value)
	if p.id = id; p.kind != kindLeaf {
		return damagedf("a bucket in page %d is of kind %x", id, p.kind)
	}
	return v.leaf(p, depth, nil, nil)
}

// keys returns the keys of a page, whose places and lengths are so many bytes into the elements. They have
// to be in order.
func (p *page) keys(field int, low, high []byte) ([][]byte, error) {
	if headerSize+p.count*elementSize > len(p.data) {
		return nil, damagedf("page %d has %d elements", p.id, p.count)
	}
	keys := make([][]byte, p.count)
	for i := range keys {
		at := headerSize + i*elementSize
		start, length := uint64(at)+uint64(number32(p.data[at+field:])), uint64(number32(p.data[at+field+4:]))
		if length == 0 || start+length > uint64(len(p.data)) {
			return nil, damagedf("element %d of page %d is damaged", i, p.id)
		}
		key := p.data[start : start+length]
		if bytes.Compare(key, low) < 0 || i > 0 && bytes.Equal(key, low) || high != nil && bytes.Compare(key, high) >= 0 {
			return nil, damagedf("element %d of page %d is not in order", i, p.id)
		}
		keys[i], low = key, key
	}
	return keys, nil
}

// freePages looks at the list of pages that are not in use, if the file has one.
func (v *verifier) freePages() error {
	if v.meta.free == noFreePage {
		return nil
	}
	p, err := v.read(v.meta.free)
	if err != nil {
		return err
	}
	list, count := p.data[headerSize:], uint64(p.count)
	if p.kind == kindFree && p.count == maxFreeInHeader {
		count, list = number64(list), list[8:]
	}
	if p.kind != kindFree || count > uint64(len(list)/8) {
		return damagedf("page %d is no list of free pages", p.id)
	}
	for i := range count {
		id := number64(list[i*8:])
		if id < 2 || id >= v.meta.pages || id < uint64(len(v.seen)) && v.seen[id] {
			return damagedf("page %d is not free", id)
		}
	}
	return nil
}

// ErrDamaged is what a file ends with whose contents cannot be those that were written.
var ErrDamaged = errors.New("file is damaged")
