package filesync

import (
	"cmp"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil/types"
)

// comparePaths orders slash-separated paths as a walk does: by component, a directory before
// what is in it.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x == '/' {
			return -1
		}
		if y == '/' {
			return 1
		}
		return cmp.Compare(x, y)
	}
	return cmp.Compare(len(a), len(b))
}

// parentOf returns the directory of a path, empty for the root.
func parentOf(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// checkPath returns an error unless p is a clean relative path below the root that the local
// system is able to represent.
func checkPath(p string) error {
	switch {
	case p == "" || p == ".":
		return protocolErrorf("empty path")
	case p[0] == '/':
		return protocolErrorf("absolute path %q", p)
	case p == ".." || strings.HasPrefix(p, "../"):
		return protocolErrorf("path %q leaves the tree", p)
	case path.Clean(p) != p:
		return protocolErrorf("unclean path %q", p)
	case strings.IndexByte(p, 0) >= 0:
		return protocolErrorf("path %q has a zero byte", p)
	}
	if _, err := filepath.Localize(p); err != nil {
		return protocolErrorf("path %q can not be represented here", p)
	}
	return nil
}

// openDir is a directory on the way to the entry that was described last.
type openDir struct {
	st *types.Stat
	// placed says that the directory is in the destination, touched that its time has to be set
	// when all is there.
	placed, touched bool
	// dropped says that neither it nor anything below it is wanted.
	dropped bool
}

// order checks that entries come in walk order, each once and below directories. It knows the
// directories on the way to the last entry.
type order struct {
	last string
	dirs []*openDir
}

// follow checks that p may come next.
func (o *order) follow(p string) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if o.last != "" && comparePaths(o.last, p) >= 0 {
		return protocolErrorf("path %q follows %q out of order", p, o.last)
	}
	o.last = p
	return nil
}

// leave drops the directories that p is not below, the innermost first, and tells of each.
func (o *order) leave(p string, left func(*openDir)) {
	for len(o.dirs) > 0 && !strings.HasPrefix(p, o.current()+"/") {
		d := o.dirs[len(o.dirs)-1]
		o.dirs = o.dirs[:len(o.dirs)-1]
		left(d)
	}
}

// enter checks that an entry is in the innermost directory, and makes it that if it is one.
func (o *order) enter(st *types.Stat) error {
	if parentOf(st.Path) != o.current() {
		return protocolErrorf("path %q is not below a directory", st.Path)
	}
	if st.IsDir() {
		o.dirs = append(o.dirs, &openDir{st: st})
	}
	return nil
}

func (o *order) current() string {
	if len(o.dirs) == 0 {
		return ""
	}
	return o.dirs[len(o.dirs)-1].st.Path
}

// dir returns the open directory with a path; nil if it is not open.
func (o *order) dir(p string) *openDir {
	for i := len(o.dirs) - 1; i >= 0; i-- {
		if o.dirs[i].st.Path == p {
			return o.dirs[i]
		}
	}
	return nil
}

// fileTable maps the ids of regular files to their paths, both ascending.
type fileTable struct {
	ids   []uint32
	ends  []int
	names []byte
	asked []uint64 // one bit per index
}

func (t *fileTable) add(id uint32, p string) {
	t.ids = append(t.ids, id)
	t.names = append(t.names, p...)
	t.ends = append(t.ends, len(t.names))
	if len(t.asked)*64 < len(t.ids) {
		t.asked = append(t.asked, 0)
	}
}

func (t *fileTable) path(i int) []byte {
	start := 0
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.names[start:t.ends[i]]
}

// ask returns the path of an id and marks it; false if there is no such file or it was marked.
func (t *fileTable) ask(id uint32) (string, bool) {
	i, ok := slices.BinarySearch(t.ids, id)
	if !ok || t.asked[i/64]&(1<<(i%64)) != 0 {
		return "", false
	}
	t.asked[i/64] |= 1 << (i % 64)
	return string(t.path(i)), true
}

// has reports whether a path is in the table.
func (t *fileTable) has(p string) bool {
	lo, hi := 0, len(t.ids)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := comparePaths(string(t.path(mid)), p); {
		case c == 0:
			return true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return false
}

func modeOf(st *types.Stat) fs.FileMode { return fs.FileMode(st.Mode) }
