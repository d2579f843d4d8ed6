package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cache/gc"
)

// PruneOpt is what one pass of Prune removes.
type PruneOpt = gc.Policy

// Prune removes records that are not in use, for each of opts in order, and calls emit for each
// when it is gone. When it returns the space is free, and the owner of the records has been told.
// A policy that keeps nothing also removes content with LabelSpare.
func (m *Manager) Prune(ctx context.Context, opts []PruneOpt, emit func(Usage)) error {
	var ids []string
	var err error
	for _, opt := range opts {
		var pruned []string
		pruned, err = m.prune(ctx, opt, emit)
		ids = append(ids, pruned...)
		if err != nil {
			break
		}
	}
	spare := false
	if err == nil && slices.ContainsFunc(opts, PruneOpt.Everything) {
		spare, err = m.removeSpare(ctx)
	}
	if len(ids) == 0 && !spare {
		return err
	}
	m.dropped(ids)
	// Also for a caller that has gone: what has been removed is to be free.
	return errors.Join(err, m.tidy(context.WithoutCancel(ctx), true), m.store.Flush())
}

// Dir returns the folder that the cache is in.
func (m *Manager) Dir() string { return m.dir }

// Disk returns the size and the free space of the file system that the cache is on.
func (m *Manager) Disk() (gc.Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.dir, &st); err != nil {
		return gc.Disk{}, fmt.Errorf("size of the disk of %s: %w", m.dir, err)
	}
	block := int64(st.Bsize) //nolint:unconvert // not 64 bits wide everywhere
	return gc.Disk{Total: int64(st.Blocks) * block, Free: int64(st.Bavail) * block}, nil
}

// prune applies one policy and returns the ids of all records that it has removed.
func (m *Manager) prune(ctx context.Context, opt PruneOpt, emit func(Usage)) (ids []string, err error) {
	match, err := parseFilters(opt.Filters)
	if err != nil {
		return nil, fmt.Errorf("failed to parse prune filters %v: %w", opt.Filters, err)
	}
	disk, err := m.Disk()
	if err != nil {
		return nil, err
	}
	all, err := m.DiskUsage(ctx, nil)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]Usage, len(all))
	records := make([]gc.Record, 0, len(all))
	for _, u := range all {
		byID[u.ID] = u
		records = append(records, candidate(u, match(u)))
	}
	plan := gc.Plan(records, opt, disk, time.Now())
	err = gc.Execute(ctx, plan, func(ctx context.Context, batch []string) error {
		gone, err := m.removeUnused(ctx, batch)
		for _, id := range gone {
			// Of the two records of one tree only one is shown.
			if u, ok := byID[id]; ok {
				emit(u)
			}
		}
		ids = append(ids, gone...)
		return err
	})
	return ids, err
}

func candidate(u Usage, match bool) gc.Record {
	r := gc.Record{
		ID: u.ID, Size: u.Size, LastUsed: u.CreatedAt, UsageCount: u.UsageCount, InUse: u.InUse,
		Shared: u.Shared, Internal: u.Type == Internal || u.Type == Frontend, Match: match,
	}
	if u.LastUsedAt != nil {
		r.LastUsed = *u.LastUsedAt
	}
	r.Parents = u.Parents
	return r
}

// removeUnused removes those of the records that nobody uses, and returns the ids of all that went.
func (m *Manager) removeUnused(ctx context.Context, ids []string) ([]string, error) {
	var removed []string
	var gone []*record
	m.mu.Lock()
	for _, id := range ids {
		r := m.records[id]
		if r == nil || r.inUse() || r.children > 0 {
			continue
		}
		if t := r.twin; t != nil && (t.inUse() || t.children > 0) {
			continue
		}
		for _, r := range m.drop(r) {
			gone = append(gone, r)
			removed = append(removed, r.id)
		}
	}
	m.mu.Unlock()
	return removed, m.remove(ctx, gone)
}
