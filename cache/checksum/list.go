package checksum

import (
	"sort"
	"strings"

	"github.com/tonistiigi/fsutil"
)

// Named is an entry with its path: clean, relative and with slashes.
type Named struct {
	Path string
	Entry
}

// List is all entries of a tree in the order of a walk, a directory before what is in it. The
// root is left out and stands for itself with the mode 0755. Directories of the entries are in it
// too.
type List []Named

// Find returns the index of a path; false if it is not there.
func (l List) Find(path string) (int, bool) {
	return sort.Find(len(l), func(i int) int { return fsutil.ComparePath(path, l[i].Path) })
}

// tree is a List and where what is below each entry ends.
type tree struct {
	list List
	// ends has, for each entry, the index of the first that is not below it.
	ends []int32
	// own says that the list may be changed.
	own bool
}

func newTree(list List) *tree {
	t := &tree{list: list, ends: make([]int32, len(list))}
	var open []int // directories on the way to an entry
	leave := func(path string, i int) {
		for len(open) > 0 {
			dir := open[len(open)-1]
			if p := list[dir].Path; strings.HasPrefix(path, p) && len(path) > len(p) && path[len(p)] == '/' {
				return
			}
			t.ends[dir] = int32(i)
			open = open[:len(open)-1]
		}
	}
	for i, e := range list {
		leave(e.Path, i)
		open = append(open, i)
	}
	leave("", len(list))
	return t
}

// below returns the range of the entries below a path, from start to end; false if it is not
// there. The root is empty.
func (t *tree) below(path string) (start, end int, ok bool) {
	if path == "" {
		return 0, len(t.list), true
	}
	i, ok := t.list.Find(path)
	if !ok {
		return 0, 0, false
	}
	return i + 1, int(t.ends[i]), true
}

// stat returns the entry at a path.
func (t *tree) stat(path string) (Entry, bool) {
	if path == "" {
		return bareRoot, true
	}
	if i, ok := t.list.Find(path); ok {
		return t.list[i].Entry, true
	}
	return Entry{}, false
}

// names returns the names in a directory, sorted.
func (t *tree) names(path string) []string {
	start, end, _ := t.below(path)
	var names []string
	for i := start; i < end; i = int(t.ends[i]) {
		_, name := split(t.list[i].Path)
		names = append(names, name)
	}
	return names
}

// setContent remembers the digest of a file.
func (t *tree) setContent(path string, sum Sum) {
	i, ok := t.list.Find(path)
	if !ok {
		return
	}
	if !t.own {
		t.list, t.own = append(List(nil), t.list...), true
	}
	t.list[i].Content, t.list[i].Hashed = sum, true
}

var bareRoot = Entry{Kind: Dir, Header: bareDir}
