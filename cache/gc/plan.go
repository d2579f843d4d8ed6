package gc

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"time"
)

// Record is a cache record as far as the decision needs it.
type Record struct {
	ID string
	// Parents are the records that this one stands on: they can go only after this.
	Parents []string
	Size    int64
	// LastUsed is the time of creation for a record that was never used.
	LastUsed   time.Time
	UsageCount int
	InUse      bool
	// Shared says that the bytes are kept by somebody else too.
	Shared bool
	// Internal says that no user made it: it goes only with Policy.All.
	Internal bool
	// Match says that the policy's filters select it.
	Match bool
}

// Result is what a policy wants removed.
type Result struct {
	// Remove has the ids, children before their parents.
	Remove []string
	// Freed and Left are bytes of records that are not shared.
	Freed, Left int64
	// Kept counts the records that were not eligible.
	Kept int
}

// Plan applies a policy to all records of a cache.
func Plan(records []Record, p Policy, disk Disk, now time.Time) Result {
	pl := planner{policy: p, now: now, byID: make(map[string]*item, len(records))}
	var res Result
	for _, r := range records {
		pl.byID[r.ID] = &item{Record: r}
		if !r.Shared {
			res.Left += r.Size
		}
	}
	keep, capped := p.keep(res.Left, disk)
	if capped && res.Left <= keep {
		res.Kept = len(records)
		return res
	}
	pl.start()
	for pl.free.Len() > 0 && (!capped || res.Left > keep) {
		it := heap.Pop(&pl.free).(*item)
		res.Remove = append(res.Remove, it.ID)
		if !it.Shared {
			res.Freed += it.Size
			res.Left -= it.Size
		}
		for _, parent := range it.Parents {
			pl.released(parent)
		}
	}
	res.Kept = len(records) - len(res.Remove)
	return res
}

type item struct {
	Record
	children int
	eligible bool
	// score orders candidates: what was used longest ago and least often goes first.
	score float64
}

type planner struct {
	policy Policy
	now    time.Time
	byID   map[string]*item
	free   candidates
}

// start finds the records that can go at once.
func (p *planner) start() {
	var eligible []*item
	for _, it := range p.byID {
		for _, id := range it.Parents {
			if parent := p.byID[id]; parent != nil {
				parent.children++
			}
		}
		if it.eligible = p.mayGo(it.Record); it.eligible {
			eligible = append(eligible, it)
		}
	}
	score(eligible)
	for _, it := range eligible {
		if it.children == 0 {
			p.free = append(p.free, it)
		}
	}
	heap.Init(&p.free)
}

func (p *planner) mayGo(r Record) bool {
	if r.InUse || !r.Match {
		return false
	}
	if !p.policy.All && (r.Internal || r.Shared) {
		return false
	}
	return p.policy.KeepDuration == 0 || !r.LastUsed.After(p.now.Add(-p.policy.KeepDuration))
}

// released makes a parent a candidate when its last child goes.
func (p *planner) released(parent string) {
	it := p.byID[parent]
	if it == nil {
		return
	}
	if it.children--; it.children == 0 && it.eligible {
		heap.Push(&p.free, it)
	}
}

// score adds a record's rank by time of last use to its rank by number of uses, each as a part of
// the highest rank.
func score(items []*item) {
	rank(items, func(a, b *item) int { return a.LastUsed.Compare(b.LastUsed) })
	rank(items, func(a, b *item) int { return cmp.Compare(a.UsageCount, b.UsageCount) })
}

func rank(items []*item, compare func(a, b *item) int) {
	slices.SortFunc(items, compare)
	ranks := make([]float64, len(items))
	for i := 1; i < len(items); i++ {
		ranks[i] = ranks[i-1]
		if compare(items[i-1], items[i]) != 0 {
			ranks[i]++
		}
	}
	for i, it := range items {
		if highest := ranks[len(ranks)-1]; highest > 0 {
			it.score += ranks[i] / highest
		}
	}
}

// candidates is a heap, the first to go on top.
type candidates []*item

func (c candidates) Len() int { return len(c) }

func (c candidates) Less(i, j int) bool {
	a, b := c[i], c[j]
	if a.score != b.score {
		return a.score < b.score
	}
	if !a.LastUsed.Equal(b.LastUsed) {
		return a.LastUsed.Before(b.LastUsed)
	}
	return a.ID < b.ID
}

func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push is for package heap.
func (c *candidates) Push(x any) { *c = append(*c, x.(*item)) }

// Pop is for package heap.
func (c *candidates) Pop() any {
	old := *c
	x := old[len(old)-1]
	*c = old[:len(old)-1]
	return x
}

// batch is how many records are handed to remove at a time.
const batch = 64

// Execute removes what the plan names, in order. The function remove gets a few ids at a time and
// passes over those that cannot go any more because they are used meanwhile.
func Execute(ctx context.Context, r Result, remove func(ctx context.Context, ids []string) error) error {
	for ids := range slices.Chunk(r.Remove, batch) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := remove(ctx, ids); err != nil {
			return err
		}
	}
	return nil
}
