package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// load reads the records, drops those whose trees are not there, and removes snapshots and leases
// that no record stands for. Its time depends on the number of records, not on their sizes.
func (m *Manager) load(ctx context.Context) error {
	l := loader{m: m, clean: m.store.Clean(), verdicts: map[string]bool{}, claimed: map[string]bool{}}
	l.committed, l.active = m.snapshots.Parents()
	if err := l.read(); err != nil {
		return err
	}
	l.judge()
	l.link()
	if err := l.removeOrphans(ctx); err != nil {
		return err
	}
	if err := l.leases(ctx); err != nil {
		return err
	}
	if err := m.remove(ctx, l.hide()); err != nil {
		return err
	}
	if l.clean {
		return nil
	}
	return m.recoverBlobs(ctx)
}

type loader struct {
	m     *Manager
	clean bool

	// committed and active are the snapshots on disk with their parents.
	committed, active map[string]string
	// verdicts says of each record whether it is good.
	verdicts map[string]bool
	// claimed are the snapshots that good records stand for.
	claimed map[string]bool
	// keys are the values of each record with their index.
	keys map[string]map[string]string
}

func (l *loader) read() error {
	m := l.m
	err := m.store.Records(func(id string, stored, used []byte) error {
		r := &record{id: id, values: map[string]string{}, size: -1}
		err := json.Unmarshal(stored, &r.state)
		if err == nil && used != nil {
			err = json.Unmarshal(used, &r.usage)
		}
		if err != nil {
			log.L.WithError(err).WithField("record", id).Warn("cache record cannot be read and is dropped")
			l.verdicts[id] = false
		}
		r.retain = r.state.Mutable
		m.records[id] = r
		return nil
	})
	if err != nil {
		return err
	}
	l.keys = map[string]map[string]string{}
	return m.store.Indexes(func(id, key, index string) {
		if l.keys[id] == nil {
			l.keys[id] = map[string]string{}
		}
		l.keys[id][key] = index
	})
}

// judge finds out which records are good: its own tree or blob is here and its parent is good.
func (l *loader) judge() {
	for id := range l.m.records {
		l.judgeUp(id)
	}
	// An immutable record whose tree is a mutable one's needs that, unless it was settled.
	for id, r := range l.m.records {
		if r.state.Twin != "" && r.state.Tree == none && !l.verdicts[r.state.Twin] {
			l.verdicts[id] = false
		}
	}
	for id, ok := range l.verdicts {
		if r := l.m.records[id]; !ok && r != nil {
			delete(l.m.records, id)
			l.m.store.DeleteRecord(id, nil)
		}
	}
}

// judgeUp judges the records that one stands on and then that one: chains are long.
func (l *loader) judgeUp(id string) {
	begun := map[string]bool{}
	for todo := []string{id}; len(todo) > 0; {
		at := todo[len(todo)-1]
		r := l.m.records[at]
		if _, ok := l.verdicts[at]; ok || r == nil {
			todo = todo[:len(todo)-1]
			continue
		}
		whole := true
		open := len(todo)
		for _, below := range r.state.below() {
			ok, judged := l.verdicts[below]
			if !judged && l.m.records[below] != nil && !begun[at] {
				todo = append(todo, below)
			}
			whole = whole && ok
		}
		begun[at] = true
		if len(todo) == open {
			l.verdicts[at] = whole && l.good(r)
			todo = todo[:len(todo)-1]
		}
	}
}

// good looks at one record alone, and corrects what a crash has left half done.
func (l *loader) good(r *record) bool {
	if _, known := l.verdicts[r.id]; known {
		return l.verdicts[r.id]
	}
	if r.state.Boot != "" && r.state.Boot != l.m.boot {
		// The machine went down before the files were on disk.
		return false
	}
	_, committed := l.committed[r.id]
	_, begun := l.active[activeKey(r.id)]
	switch {
	case r.state.Mutable:
		return begun
	case committed:
		// Perhaps just before the crash.
		r.state.Tree, r.state.Twin = settled, ""
		return true
	case r.state.Twin != "":
		return true // see judge
	case r.state.Tree == active:
		return begun
	}
	if r.state.Kind != layered {
		r.state.Tree = none
		return true
	}
	// What is left is lazy, or can be again. A blob that was made here is not enough: what
	// removed the tree was about to remove the record.
	r.state.Tree = none
	return slices.ContainsFunc(r.state.Blobs, func(v variant) bool { return !v.Made })
}

// link connects the good records.
func (l *loader) link() {
	m := l.m
	for id, r := range m.records {
		r.parent = m.records[r.state.Parent]
		for _, part := range r.state.Parts {
			r.parts = append(r.parts, m.records[part])
		}
		for _, p := range r.below() {
			p.children++
		}
		if t := m.records[r.state.Twin]; t != nil {
			r.twin, t.twin = t, r
		}
		switch r.state.Tree {
		case settled:
			l.claimed[id] = true
		case active:
			l.claimed[activeKey(id)] = true
		}
		if r.state.DiffID != "" && !r.state.Dropped {
			m.indexLayer(r)
		}
		l.linkValues(r)
		if r.state.Writing {
			r.state.Writing = false
			m.put(r)
		}
		if r.state.Boot != "" {
			m.syncLater()
		}
	}
	for id, keys := range l.keys {
		if m.records[id] == nil {
			for key := range keys {
				m.store.PutValue(id, key, nil, "")
			}
		}
	}
}

// hide takes dropped records out of sight again, and returns those that nothing stands on any more.
func (l *loader) hide() []*record {
	var gone []*record
	for _, r := range l.m.records {
		if r.state.Dropped {
			gone = append(gone, l.m.drop(r)...)
		}
	}
	return gone
}

func (l *loader) linkValues(r *record) {
	for key, index := range l.keys[r.id] {
		if r.state.Writing && index == "" {
			// It was being written to when the process ended: see MutableRef.SetValue.
			l.m.store.PutValue(r.id, key, nil, "")
			continue
		}
		r.values[key] = index
		l.m.indexValue(r, key, index)
	}
}

// removeOrphans removes snapshots that no record stands for, those above before those below.
func (l *loader) removeOrphans(ctx context.Context) error {
	var orphans []string
	depth := map[string]int{}
	find := func(snapshots map[string]string) {
		for name := range snapshots {
			if !l.claimed[name] {
				orphans = append(orphans, name)
				l.depth(name, depth)
			}
		}
	}
	find(l.committed)
	find(l.active)
	slices.SortFunc(orphans, func(a, b string) int { return depth[b] - depth[a] })
	return l.m.removeSnapshots(ctx, orphans)
}

// depth notes how many snapshots one stands on.
func (l *loader) depth(name string, known map[string]int) {
	var chain []string
	for name != "" {
		if _, ok := known[name]; ok {
			break
		}
		chain = append(chain, name)
		if p, ok := l.active[name]; ok {
			name = p
		} else {
			name = l.committed[name]
		}
	}
	d := 0
	if name != "" {
		d = known[name] + 1
	}
	for _, n := range slices.Backward(chain) {
		known[n] = d
		d++
	}
}

// leases notes which records have a lease and removes those of no record.
func (l *loader) leases(ctx context.Context) error {
	all, err := l.m.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	var orphans []leases.Lease
	for _, lease := range all {
		id, ok := strings.CutPrefix(lease.ID, leasePrefix)
		if !ok {
			l.m.noteExpiry(lease)
			continue
		}
		if r := l.m.records[id]; r != nil {
			r.leased = true
		} else {
			orphans = append(orphans, lease)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	return l.m.leaseTx(ctx, func(ctx context.Context) error {
		for _, lease := range orphans {
			if err := l.m.leases.Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
}
