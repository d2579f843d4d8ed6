package history

import (
	"cmp"
	"slices"
	"time"
)

// entry is what decides about whether a record stays.
type entry struct {
	ref    string
	ended  time.Time
	pinned bool
}

// plan returns the records that are to go: those that ended before a time, and are not among the
// newest, of which so many stay whatever their age. Pinned ones stay and are not counted.
func plan(all []entry, stay int, before time.Time) []string {
	all = slices.DeleteFunc(all, func(e entry) bool { return e.pinned })
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(b.ended.Compare(a.ended), cmp.Compare(a.ref, b.ref))
	})
	var out []string
	for _, e := range all[min(max(stay, 0), len(all)):] {
		if e.ended.Before(before) {
			out = append(out, e.ref)
		}
	}
	return out
}
