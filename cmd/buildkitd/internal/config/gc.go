package config

import (
	"time"

	"github.com/openbuildkit/buildkit/cache/gc"
)

// Rules returns the policies for a file system of total bytes, 0 if that is not known, in the
// order in which they are to run; none if the collector is off.
func (c GC) Rules(total int64) []gc.Policy {
	if c.Enabled != nil && !*c.Enabled {
		return nil
	}
	if len(c.Policies) == 0 {
		return c.defaultRules(total)
	}
	rules := make([]gc.Policy, len(c.Policies))
	for i, p := range c.Policies {
		reserved := p.ReservedSpace
		if reserved == (DiskSpace{}) {
			reserved = p.KeepBytes
		}
		rules[i] = gc.Policy{
			All:           p.All,
			Filters:       p.Filters,
			KeepDuration:  p.KeepDuration.Duration,
			ReservedSpace: reserved.Of(total),
			MaxUsedSpace:  p.MaxUsedSpace.Of(total),
			MinFreeSpace:  p.MinFreeSpace.Of(total),
		}
	}
	return rules
}

// Bounds of the default policies.
const (
	defaultReservedMax = 10e9
	defaultUsedMax     = 100e9
	cheapUsedMax       = 512e6
)

// defaultRules give up first what is cheap to have again, then what nobody has used for long, and
// then whatever has to go.
func (c GC) defaultRules(total int64) []gc.Policy {
	reserved := min(DiskSpace{Percent: 10}.Of(total), defaultReservedMax)
	used := min(DiskSpace{Percent: 80}.Of(total), defaultUsedMax)
	free := DiskSpace{Percent: 20}.Of(total)
	switch {
	case c.ReservedSpace != nil:
		reserved = c.ReservedSpace.Of(total)
	case c.KeepStorage != nil:
		reserved = c.KeepStorage.Of(total)
	}
	if c.MaxUsedSpace != nil {
		used = c.MaxUsedSpace.Of(total)
	}
	if c.MinFreeSpace != nil {
		free = c.MinFreeSpace.Of(total)
	}
	const day = 24 * time.Hour
	return []gc.Policy{
		{
			Filters:      []string{"type==source.local", "type==exec.cachemount", "type==source.git.checkout"},
			KeepDuration: 2 * day,
			MaxUsedSpace: cheapUsedMax,
		},
		{KeepDuration: 60 * day, ReservedSpace: reserved, MaxUsedSpace: used, MinFreeSpace: free},
		{ReservedSpace: reserved, MaxUsedSpace: used, MinFreeSpace: free},
		{All: true, ReservedSpace: reserved, MaxUsedSpace: used, MinFreeSpace: free},
	}
}
