package checksum

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"sync"

	"github.com/openbuildkit/buildkit/cache"
)

// table is what is known of one tree. Paths are clean, without a leading slash; the root is "".
type table struct {
	mu sync.Mutex
	// seed, if not nil, is all that there is; then entries and names are not used.
	seed *tree

	entries map[string]Entry
	// names lists the directories that were read.
	names map[string][]string
	// sums are the digests of whole directories.
	sums map[string]Sum
	// fresh tells that something was learnt that is not stored.
	fresh bool
	// counted is how many entries the Cache has taken into account.
	counted int
}

func newTable() *table {
	return &table{entries: map[string]Entry{}, names: map[string][]string{}, sums: map[string]Sum{}}
}

// fill makes a table complete.
func (t *table) fill(list List) {
	t.seed, t.entries, t.names, t.sums = newTree(list), nil, nil, map[string]Sum{}
	t.fresh = true
}

// size returns the number of entries that are known.
func (t *table) size() int {
	if t.seed != nil {
		return len(t.seed.list)
	}
	return len(t.entries)
}

// setContent remembers the digest of a file that is known.
func (t *table) setContent(p string, sum Sum) {
	t.fresh = true
	if t.seed != nil {
		t.seed.setContent(p, sum)
		return
	}
	e := t.entries[p]
	e.Content, e.Hashed = sum, true
	t.entries[p] = e
}

var bareDir = HeaderOf(dirStat(0o755 | uint32(fs.ModeDir)))

func split(p string) (dir, name string) {
	dir, name = path.Split(p)
	if dir != "" {
		dir = dir[:len(dir)-1]
	}
	return dir, name
}

// valueKey is where the digests of files are stored beside a record. Only those are: everything
// else is had from the tree without reading its files.
const valueKey = "checksum"

// valueVersion changes with the format or with what a digest covers.
const valueVersion = 1

var errTable = errors.New("stored checksums are damaged")

func (t *table) encode() []byte {
	b := []byte{valueVersion}
	for p, e := range t.entries {
		if e.Kind != File || !e.Hashed {
			continue
		}
		b = appendString(b, p)
		b = append(b, e.Header[:]...)
		b = append(b, e.Content[:]...)
	}
	return b
}

func decodeTable(b []byte) (*table, error) {
	t := newTable()
	if len(b) == 0 || b[0] != valueVersion {
		return t, nil
	}
	b = b[1:]
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return newTable(), errTable
		}
		p := string(b[size : size+int(n)])
		b = b[size+int(n):]
		if len(b) < 2*len(Sum{}) {
			return newTable(), errTable
		}
		t.entries[p] = Entry{Kind: File, Header: Sum(b[:32]), Content: Sum(b[32:64]), Hashed: true}
		b = b[64:]
	}
	return t, nil
}

func loadTable(ref *cache.Ref) *table {
	// What is damaged is computed anew.
	t, _ := decodeTable(ref.Value(valueKey))
	return t
}

func (t *table) save(ref *cache.Ref) error {
	t.fresh = false
	if t.seed != nil {
		// It came from a transfer and is as cheap to have again; storing it would cost more.
		return nil
	}
	return ref.SetValue(valueKey, t.encode(), "")
}
