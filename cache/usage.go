package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// DiskUsage returns the records that match any of the filters (all, if there are none), the oldest
// first. A filter
// is an expression of containerd's grammar, a comma in one means "and". Fields are id, parents
// (joined with ";"), description and type, which have values, and inuse, mutable, immutable, shared
// and private, which are there or not.
func (m *Manager) DiskUsage(ctx context.Context, filter []string) ([]Usage, error) {
	match, err := parseFilters(filter)
	if err != nil {
		return nil, fmt.Errorf("failed to parse diskusage filters %v: %w", filter, err)
	}
	var all []Usage
	for _, r := range m.visible() {
		u, err := m.usage(ctx, r)
		if err != nil {
			return nil, err
		}
		if match(u) {
			all = append(all, u)
		}
	}
	return all, nil
}

// visible returns the records as users see them: two of one tree are one.
func (m *Manager) visible() []*record {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := make([]*record, 0, len(m.records))
	for _, r := range m.records {
		if r.twin != nil && !r.state.Mutable {
			continue // shown as the mutable one
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(a.state.CreatedAt.Compare(b.state.CreatedAt), cmp.Compare(a.id, b.id))
	})
	return records
}

// usage returns what disk usage shows of a record.
func (m *Manager) usage(ctx context.Context, r *record) (Usage, error) {
	size, err := m.size(ctx, r)
	if err != nil {
		return Usage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := Usage{
		ID:          r.id,
		Mutable:     r.state.Mutable || r.state.Tree == active,
		InUse:       r.inUse() || r.twin != nil && r.twin.inUse(),
		Size:        size,
		CreatedAt:   r.state.CreatedAt,
		UsageCount:  r.usage.Count,
		Description: r.state.Text,
		Type:        r.state.Type,
	}
	last := r.usage.LastUsed
	if t := r.twin; t != nil {
		u.UsageCount += t.usage.Count
		if t.usage.LastUsed.After(last) {
			last = t.usage.LastUsed
		}
	}
	if !last.IsZero() {
		u.LastUsedAt = &last
	}
	for _, p := range r.below() {
		u.Parents = append(u.Parents, p.id)
	}
	if u.Mutable && u.InUse {
		// It changes while one looks.
		u.Size = 0
	}
	return u, nil
}

// size returns the size of a record's layer, its blobs included.
func (m *Manager) size(ctx context.Context, r *record) (int64, error) {
	m.mu.Lock()
	size, tree, key := r.size, r.state.Tree, r.id
	if r.twin != nil && tree == none {
		tree, key = active, r.twin.id
	}
	if tree == active {
		key = activeKey(key)
	}
	busy := r.state.Mutable && r.inUse()
	writes := r.writes
	blobs := r.state.Blobs
	m.mu.Unlock()
	if busy {
		return 0, nil
	}
	if size >= 0 {
		return size, nil
	}
	size = 0
	if tree != none {
		u, err := m.snapshots.Usage(ctx, key)
		// A tree that is lost is found out by who reads it.
		if err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("size of cache record %s: %w", r.id, err)
		}
		size = u.Size
	}
	counted := map[digest.Digest]bool{}
	for _, v := range blobs {
		if counted[v.Descriptor.Digest] {
			continue // another level has given the same bytes
		}
		counted[v.Descriptor.Digest] = true
		info, err := m.content.Info(ctx, v.Descriptor.Digest)
		if err == nil {
			size += info.Size
		} else if !errdefs.IsNotFound(err) {
			return 0, fmt.Errorf("size of cache record %s: %w", r.id, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.writes == writes && !r.inUse() {
		r.size = size
	}
	return size, nil
}

// parseFilters returns a function that reports whether a record matches any of the filters.
func parseFilters(filter []string) (func(Usage) bool, error) {
	f, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, err
	}
	return func(u Usage) bool { return f.Match(adapt(u)) }, nil
}

func adapt(u Usage) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "id":
			return u.ID, u.ID != ""
		case "parents":
			return strings.Join(u.Parents, ";"), len(u.Parents) > 0
		case "description":
			return u.Description, u.Description != ""
		case "type":
			return string(u.Type), u.Type != ""
		case "inuse":
			return "", u.InUse
		case "mutable":
			return "", u.Mutable
		case "immutable":
			return "", !u.Mutable
		case "shared":
			return "", u.Shared
		case "private":
			return "", !u.Shared
		}
		return "", false
	})
}
