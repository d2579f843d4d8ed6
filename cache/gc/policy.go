// Package gc decides which cache records to remove.
//
// A Policy says what may go and how much may stay. Plan applies one to a list of records and
// returns what to remove, in order, with figures; it is a pure function of its arguments, so a dry
// run is a plan that nobody executes. Execute carries one out through a function of the owner of
// the records, package cache.
package gc

import (
	"time"
)

// Policy is one rule. The zero value removes every record that is not in use, of the types that
// users made.
type Policy struct {
	// All lets internal and frontend records and those shared with an image store go too.
	All bool
	// Filters narrow the rule to records that match any of them; see cache.Manager.DiskUsage.
	Filters []string
	// KeepDuration keeps what was used more recently.
	KeepDuration time.Duration
	// ReservedSpace is what the cache may always take, in bytes.
	ReservedSpace int64
	// MaxUsedSpace is what it may not exceed, 0 for no limit.
	MaxUsedSpace int64
	// MinFreeSpace is what is to be free on its disk, 0 for no matter how little.
	MinFreeSpace int64
}

// Capped reports whether the rule removes only until limits are met.
func (p Policy) Capped() bool {
	return p.ReservedSpace != 0 || p.MaxUsedSpace != 0 || p.MinFreeSpace != 0
}

// Everything reports whether the rule keeps nothing that is not in use.
func (p Policy) Everything() bool {
	return p.All && len(p.Filters) == 0 && p.KeepDuration == 0 && !p.Capped()
}

// Disk is the file system that the cache is on, in bytes.
type Disk struct {
	Total, Free int64
}

// keep returns how much of used may stay, and whether there is a limit at all.
func (p Policy) keep(used int64, disk Disk) (int64, bool) {
	if !p.Capped() {
		return 0, false
	}
	keep := p.MaxUsedSpace
	missing := p.MinFreeSpace - disk.Free
	switch {
	case p.MinFreeSpace > 0 && missing > 0:
		left := max(0, used-missing)
		if keep == 0 || left < keep {
			keep = left
		}
	case p.MinFreeSpace > 0 && keep == 0:
		keep = used
	}
	return max(keep, p.ReservedSpace), true
}
