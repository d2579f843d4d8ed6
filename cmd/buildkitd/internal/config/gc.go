package config

import "time"

// GCRule is a policy of the collector in bytes.
type GCRule struct {
	All                                       bool
	Filters                                   []string
	KeepDuration                              time.Duration
	ReservedSpace, MaxUsedSpace, MinFreeSpace int64
}

// Rules returns the policies for a file system of total bytes, 0 if that is not known, in the
// order in which they are to run; none if the collector is off.
func (gc GC) Rules(total int64) []GCRule {
	if gc.Enabled != nil && !*gc.Enabled {
		return nil
	}
	if len(gc.Policies) == 0 {
		return gc.defaultRules(total)
	}
	rules := make([]GCRule, len(gc.Policies))
	for i, p := range gc.Policies {
		reserved := p.ReservedSpace
		if reserved == (DiskSpace{}) {
			reserved = p.KeepBytes
		}
		rules[i] = GCRule{
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
func (gc GC) defaultRules(total int64) []GCRule {
	reserved := min(DiskSpace{Percent: 10}.Of(total), defaultReservedMax)
	used := min(DiskSpace{Percent: 80}.Of(total), defaultUsedMax)
	free := DiskSpace{Percent: 20}.Of(total)
	switch {
	case gc.ReservedSpace != nil:
		reserved = gc.ReservedSpace.Of(total)
	case gc.KeepStorage != nil:
		reserved = gc.KeepStorage.Of(total)
	}
	if gc.MaxUsedSpace != nil {
		used = gc.MaxUsedSpace.Of(total)
	}
	if gc.MinFreeSpace != nil {
		free = gc.MinFreeSpace.Of(total)
	}
	const day = 24 * time.Hour
	return []GCRule{
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
