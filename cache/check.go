package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// Check verifies that records, snapshots, leases and content fit together, and returns all faults
// that it finds. Nothing may use the cache meanwhile. Tests call it before they close one.
func (m *Manager) Check(ctx context.Context) error {
	if err := m.store.Flush(); err != nil {
		return err
	}
	if err := m.tidy(ctx, true); err != nil {
		return err
	}
	c := checker{m: m, claimed: map[string]string{}, children: map[*record]int{}}
	c.committed, c.active = m.snapshots.Parents()
	m.mu.Lock()
	defer m.mu.Unlock()
	c.count()
	for r := range c.children {
		c.record(r)
	}
	c.orphans(c.committed)
	c.orphans(c.active)
	c.leases(ctx)
	return errors.Join(c.faults...)
}

type checker struct {
	m                 *Manager
	committed, active map[string]string
	// claimed has the record that stands for each snapshot.
	claimed map[string]string
	faults  []error
	// children counts what stands on each record, of all that are known or are kept for others.
	children map[*record]int
}

func (c *checker) count() {
	counted := map[*record]bool{}
	for _, r := range c.m.records {
		if r.gone {
			c.fault("record %s is known and gone", r.id)
		}
		for todo := []*record{r}; len(todo) > 0; {
			at := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if counted[at] {
				continue
			}
			counted[at] = true
			c.children[at] += 0
			for _, p := range at.below() {
				c.children[p]++
				todo = append(todo, p)
			}
		}
	}
}

func (c *checker) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, args...))
}

func (c *checker) record(r *record) {
	if r.parentID() != r.state.Parent {
		c.fault("record %s: parent %q stored as %q", r.id, r.parentID(), r.state.Parent)
	}
	if n := c.children[r]; n != r.children {
		c.fault("record %s: %d children counted as %d", r.id, n, r.children)
	}
	if r.twin != nil && (r.twin.twin != r || r.twin.state.Mutable == r.state.Mutable) {
		c.fault("record %s: %s is no twin of it", r.id, r.twin.id)
	}
	c.tree(r)
	if r.gone {
		return
	}
	for key, index := range r.values {
		if v, err := c.m.store.Value(r.id, key); err != nil || v == nil {
			c.fault("record %s: value %q is lost: %w", r.id, key, err)
		}
		if index != "" && c.m.index[indexKey{key, index}][r.id] != r {
			c.fault("record %s: value %q is not found by its index", r.id, key)
		}
	}
}

func (c *checker) tree(r *record) {
	switch r.state.Tree {
	case settled:
		c.claim(r, r.id, c.committed)
	case active:
		c.claim(r, activeKey(r.id), c.active)
	case none:
		if r.twin == nil && len(r.state.Blobs) == 0 && r.state.Kind == layered {
			c.fault("record %s: neither a tree nor a blob", r.id)
		}
	}
}

func (c *checker) claim(r *record, key string, snapshots map[string]string) {
	parent, ok := snapshots[key]
	if !ok {
		c.fault("record %s: no snapshot %s", r.id, key)
		return
	}
	if r.state.Kind == layered && parent != r.parentID() {
		c.fault("record %s: snapshot on %q, not on %q", r.id, parent, r.parentID())
	}
	c.claimed[key] = r.id
}

func (c *checker) orphans(snapshots map[string]string) {
	for key := range snapshots {
		if c.claimed[key] == "" {
			c.fault("snapshot %s: no record", key)
		}
	}
}

func (c *checker) leases(ctx context.Context) {
	all, err := c.m.leases.List(ctx)
	if err != nil {
		c.fault("list leases: %w", err)
	}
	leased := map[string]bool{}
	for r := range c.children {
		leased[r.id] = r.leased
	}
	for _, l := range all {
		id, ok := strings.CutPrefix(l.ID, leasePrefix)
		if !ok {
			continue
		}
		if !leased[id] {
			c.fault("lease %s: no record that has it", l.ID)
		}
		resources, err := c.m.leases.ListResources(ctx, l)
		if err != nil {
			c.fault("lease %s: %w", l.ID, err)
		}
		for _, res := range resources {
			if res.Type != "content" {
				// A transfer that was given up can be gone on with.
				if res.Type != "ingests" || !strings.HasPrefix(res.ID, blob.TransferPrefix) {
					c.fault("lease %s: unexpected %s %s", l.ID, res.Type, res.ID)
				}
				continue
			}
			if _, err := c.m.content.Info(ctx, digest.Digest(res.ID)); err != nil && !errdefs.IsNotFound(err) {
				c.fault("lease %s: %w", l.ID, err)
			}
		}
	}
}
