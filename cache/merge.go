package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/snapshot"
)

// kind says what the tree of a record is made of.
type kind string

const (
	// layered: a layer of its own on the parent.
	layered kind = ""
	// merged: the layers of all parts, those of later parts on top.
	merged kind = "merge"
	// rest: the layers that the second part has on top of those of the first one.
	rest kind = "rest"
	// difference: one layer of its own, which turns the first part into the second one. Its tree
	// shows what that adds; what it removes is a value of the record.
	difference kind = "diff"
)

// removedValue is where a record keeps the names that its layer removes, as JSON, because its tree
// cannot: it shows only what is there, and removes only what was there below it.
const removedValue = "removed"

// maxHeight is how many layers a merge may have. Merges of merges could have any number, each named by
// a few bytes. Images have at most 127.
const maxHeight = 1 << 16

// MergeError says why trees cannot be merged.
type MergeError struct{ Layers int }

func (e *MergeError) Error() string {
	return fmt.Sprintf("merge has %d layers, more than %d", e.Layers, maxHeight)
}

// below returns the ids of the records that one stands on.
func (s *state) below() []string {
	var ids []string
	for _, id := range append([]string{s.Parent}, s.Parts...) {
		if id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// below returns the records that r stands on, one several times if it is several parts.
func (r *record) below() []*record {
	if r.parent != nil {
		return []*record{r.parent}
	}
	var all []*record
	for _, p := range r.parts {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// height returns how many layers a tree has.
func height(r *record) int {
	n := 0
	for r != nil && (r.state.Kind == layered || r.state.Kind == difference) {
		n, r = n+1, r.parent
	}
	if r != nil {
		n += r.state.Height
	}
	return n
}

// layersOf returns the records whose layers make the tree of r, lowest first.
func layersOf(r *record) []*record {
	// From the top: of what is below a part, as many layers count as limit says.
	type part struct {
		*record
		limit int
	}
	var all []*record
	for todo := []part{{r, height(r)}}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if at.record == nil || len(all) >= at.limit {
			continue
		}
		switch at.state.Kind {
		case layered, difference:
			all = append(all, at.record)
			todo = append(todo, part{at.parent, at.limit})
		case merged:
			for _, p := range at.parts {
				todo = append(todo, part{p, at.limit})
			}
		case rest:
			todo = append(todo, part{at.parts[1], min(at.limit, len(all)+at.state.Height)})
		}
	}
	slices.Reverse(all)
	return all
}

// Merge returns the tree of refs laid over each other, later ones on top: its layers are all of theirs.
// Nothing is fetched or read until the tree is; then it shows in progress, if that is still there. The
// refs, of which nil ones are left out, stay the caller's. The error is a *MergeError if there would be
// too many layers, and ErrLost if one of the refs is known to be lost.
func (m *Manager) Merge(ctx context.Context, refs []*Ref, d Description, progress event.Scope) (*Ref, error) {
	refs = slices.DeleteFunc(slices.Clone(refs), func(r *Ref) bool { return r == nil })
	if len(refs) < 2 {
		if len(refs) == 0 {
			return nil, nil
		}
		return refs[0].Clone(), nil
	}
	n := 0
	for _, ref := range refs {
		n += height(ref.rec)
		if n > maxHeight {
			return nil, &MergeError{n}
		}
	}
	return m.compose(ctx, merged, refs, n, d, progress)
}

// Diff returns what turns the tree lower into upper: the layers that upper has on top of lower's, or,
// if it is not built on lower, one layer that is found by comparing. Shown alone it is what upper adds;
// in a Merge it also removes. Nothing is fetched or read until the tree is. Either ref may be nil, and
// both stay the caller's.
func (m *Manager) Diff(ctx context.Context, lower, upper *Ref, d Description, progress event.Scope) (*Ref, error) {
	if lower == nil {
		return upper.Clone(), nil
	}
	if upper != nil {
		low, high := layersOf(lower.rec), layersOf(upper.rec)
		if len(low) <= len(high) && slices.Equal(low, high[:len(low)]) {
			if len(low) == len(high) {
				return nil, nil
			}
			return m.compose(ctx, rest, []*Ref{lower, upper}, len(high)-len(low), d, progress)
		}
	}
	return m.compose(ctx, difference, []*Ref{lower, upper}, 1, d, progress)
}

// compose makes a record of others.
func (m *Manager) compose(ctx context.Context, k kind, refs []*Ref, height int, d Description, progress event.Scope) (*Ref, error) {
	r := m.newRecord(nil, d)
	r.state.Kind, r.state.Height = k, height
	r.progress = progress
	for _, ref := range refs {
		if err := ref.Lost(); err != nil {
			return nil, err
		}
		if ref == nil {
			r.parts, r.state.Parts = append(r.parts, nil), append(r.state.Parts, "")
			continue
		}
		if m.hasTwin(ref.rec) {
			// Else the tree it came from could not be written to as long as this one is here.
			if err := m.settle(ctx, ref.rec, ""); err != nil {
				return nil, err
			}
		}
		r.parts, r.state.Parts = append(r.parts, ref.rec), append(r.state.Parts, ref.rec.id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.insert(r)
	return m.open(r), nil
}

func (m *Manager) hasTwin(r *record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.twin != nil
}

// makeJoined makes the tree of a record that is made of others.
func (m *Manager) makeJoined(ctx context.Context, r *record, acc Access) error {
	base, layers := m.plan(r)
	needed := layers
	if base != nil {
		needed = append([]*record{base}, layers...)
	}
	if r.state.Kind == difference {
		needed = r.below()
	}
	if err := m.makeAll(ctx, needed, acc); err != nil {
		return err
	}
	key := activeKey(r.id)
	if err := m.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	step := "merging"
	if r.state.Kind == difference {
		step = "comparing"
	}
	done := m.scope(r).Step(step)
	var err error
	if r.state.Kind == difference {
		err = m.compareParts(ctx, r, key)
	} else {
		err = m.link(ctx, base, layers, key)
	}
	if err == nil {
		err = m.commitJoined(ctx, r, key)
	}
	return m.lostPart(done(err))
}

// plan says what the tree of a record is made of: that of base, nil for an empty one, and layers on top
// of it. Of a layer that comes several times only the last one counts.
func (m *Manager) plan(r *record) (base *record, layers []*record) {
	layers = layersOf(r)
	if r.state.Kind == merged {
		base = r.parts[0]
		for base.state.Kind == merged && !m.here(base) {
			base = base.parts[0]
		}
		if base.state.Kind == rest && !m.here(base) {
			base = nil
		}
	}
	if base != nil {
		layers = layers[height(base):]
	}
	var last []*record
	seen := map[*record]bool{}
	for _, l := range slices.Backward(layers) {
		if !seen[l] {
			seen[l] = true
			last = append(last, l)
		}
	}
	slices.Reverse(last)
	return base, last
}

// makeAll makes the trees of records real, several at a time, and has each in a snapshot of its own name.
func (m *Manager) makeAll(ctx context.Context, records []*record, acc Access) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxLayers)
	for _, r := range records {
		g.Go(func() error {
			if err := m.makeTree(ctx, r, acc, func() {}); err != nil {
				return err
			}
			return m.settle(ctx, r, "")
		})
	}
	return g.Wait()
}

// link makes an active snapshot of base and layers.
func (m *Manager) link(ctx context.Context, base *record, layers []*record, key string) error {
	on := ""
	if base != nil {
		on = base.id
	}
	parts := make([]snapshot.Layer, len(layers))
	for i, l := range layers {
		removed, err := m.removals(l)
		if err != nil {
			return err
		}
		parts[i] = snapshot.Layer{Snapshot: l.id, Removed: removed}
	}
	return m.snapshots.Join(ctx, key, on, parts)
}

// compareParts makes an active snapshot of what the second part of r has more than the first one.
func (m *Manager) compareParts(ctx context.Context, r *record, key string) error {
	var ids [2]string
	for i, p := range r.parts {
		if p != nil {
			ids[i] = p.id
		}
	}
	removed, err := m.snapshots.Compare(ctx, key, ids[0], ids[1])
	if err != nil {
		return err
	}
	return m.setRemovals(r, removed)
}

// setRemovals keeps the names that the layer of a record removes. It comes before there is a tree, also
// on disk: a record that has one must know what it removes.
func (m *Manager) setRemovals(r *record, removed []string) error {
	if len(removed) == 0 {
		return nil
	}
	m.mu.Lock()
	r.removed = removed
	gone := r.gone
	m.mu.Unlock()
	if gone {
		return nil // those who have it still go on
	}
	if err := m.setValue(r, removedValue, mustJSON(removed), ""); err != nil {
		return err
	}
	return m.store.Flush()
}

// removals returns the names that the layer of a record removes, if its snapshot may not say all.
func (m *Manager) removals(r *record) (removed []string, err error) {
	m.mu.Lock()
	removed = r.removed
	m.mu.Unlock()
	if removed != nil {
		return removed, nil
	}
	v := m.value(r, removedValue)
	if v == nil {
		return nil, nil
	}
	if err := json.Unmarshal(v, &removed); err != nil {
		return nil, m.lose(r, fmt.Errorf("what it removes cannot be read: %w", err))
	}
	return removed, nil
}

func (m *Manager) commitJoined(ctx context.Context, r *record, key string) error {
	if err := m.snapshots.Commit(ctx, r.id, key); err != nil {
		return errors.Join(err, m.snapshots.Remove(context.WithoutCancel(ctx), key))
	}
	m.unpacked(r)
	return nil
}

// lostPart drops the record whose files are missing, if that is why trees could not be joined.
func (m *Manager) lostPart(err error) error {
	var at *snapshot.LayerError
	if !errors.As(err, &at) || !errdefs.IsNotFound(err) {
		return err
	}
	m.mu.Lock()
	lost := m.records[at.Snapshot]
	m.mu.Unlock()
	if lost == nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return m.lose(lost, err)
}

// scope is where the work for a record shows.
func (m *Manager) scope(r *record) event.Scope {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.progress
}
