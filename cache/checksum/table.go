package checksum

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/openbuildkit/buildkit/cache"
)

// table is what is known of one tree. Paths are clean, without a leading slash; the root is "".
type table struct {
	mu      sync.Mutex
	entries map[string]Entry
	// names lists the directories that were read.
	names map[string][]string
	// sums are the digests of whole directories.
	sums map[string]Sum
	// complete tells that nothing exists but what is listed.
	complete bool
	// fresh tells that something was learnt that is not stored.
	fresh bool
	// counted is how many entries the Cache has taken into account.
	counted int
}

func newTable() *table {
	return &table{entries: map[string]Entry{}, names: map[string][]string{}, sums: map[string]Sum{}}
}

// seed makes a table complete.
func (t *table) seed(entries map[string]Entry) {
	t.entries = entries
	if t.entries == nil {
		t.entries = map[string]Entry{}
	}
	t.names = map[string][]string{"": nil}
	t.sums = map[string]Sum{}
	t.complete, t.fresh = true, true
	for p := range entries {
		for p != "" {
			dir, name := split(p)
			if _, ok := t.entries[dir]; !ok {
				t.entries[dir] = Entry{Kind: Dir, Header: bareDir}
			}
			known := t.names[dir]
			t.names[dir] = append(known, name)
			if len(known) > 0 && dir != "" {
				break
			}
			p = dir
		}
	}
	if _, ok := t.entries[""]; !ok {
		t.entries[""] = Entry{Kind: Dir, Header: bareDir}
	}
	for dir, names := range t.names {
		slices.Sort(names)
		t.names[dir] = slices.Compact(names)
	}
	for p, e := range t.entries {
		if e.Kind == Dir && t.names[p] == nil {
			t.names[p] = []string{}
		}
	}
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
	if t.complete {
		// It came from a transfer and is as cheap to have again; storing it would cost more.
		return nil
	}
	return ref.SetValue(valueKey, t.encode(), "")
}
