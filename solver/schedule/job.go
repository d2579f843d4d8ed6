package schedule

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// Job is a build as the scheduler knows it. It holds every node that it has loaded, with its
// result, until Close.
type Job struct {
	s        *Scheduler
	sessions []string
	feed     *feed.Feed
	value    any

	mu    sync.Mutex
	blobs []*blob.Sources

	// Guarded by the scheduler's lock. introduced are the sources that the Job may join, refused
	// those that it asked for in vain before another Job did better.
	nodes      map[nodeID]*node
	introduced map[nodeID]bool
	refused    map[*node]error
	closed     bool
}

// NewJob makes a Job. Its events go to a feed; sessions serve what it wants; value is for its ops,
// see Env.Values.
func (s *Scheduler) NewJob(sessions []string, told *feed.Feed, value any) *Job {
	return &Job{
		s: s, sessions: sessions, feed: told, value: value,
		nodes: map[nodeID]*node{}, introduced: map[nodeID]bool{},
	}
}

// Find returns the sources of a blob among what the Job has resolved.
func (j *Job) Find(dgst digest.Digest) []blob.Source {
	j.mu.Lock()
	all := append([]*blob.Sources(nil), j.blobs...)
	j.mu.Unlock()
	var out []blob.Source
	for _, s := range all {
		out = append(out, s.Find(dgst)...)
	}
	return out
}

// AddBlobs offers the sources of lazy blobs that were resolved outside of the graph.
func (j *Job) AddBlobs(s *blob.Sources) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.blobs = append(j.blobs, s)
}

// Load makes the nodes of g, or joins those that are there, and returns the edge of its root.
// Loading a graph again, or one that overlaps, is cheap. A source that other sessions asked for is
// joined once the Job's own sessions have shown that they may ask for it, too.
func (j *Job) Load(ctx context.Context, g *graph.Graph) (Edge, error) {
	for {
		edge, unknown, err := j.join(g)
		if err != nil || len(unknown) == 0 {
			return edge, err
		}
		if err := j.introduce(ctx, unknown); err != nil {
			return Edge{}, err
		}
	}
}

// join joins the nodes of g, unless there are some that the Job has to be introduced to before.
func (j *Job) join(g *graph.Graph) (Edge, []*node, error) {
	made := make(map[*graph.Vertex]*node, len(g.Vertices))
	variants := make(map[*graph.Vertex]digest.Digest, len(g.Vertices))
	fresh := make([]*node, 0, len(g.Vertices))
	for _, v := range g.Vertices {
		variants[v] = variant(v, variants)
		id := nodeID{digest: v.Digest, variant: variants[v]}
		switch {
		case v.Sharing == graph.ShareNone:
			id.owner = j
		case v.Sharing == graph.ShareSession && len(j.sessions) > 0:
			id.session = j.sessions[0]
		}
		n := j.s.peek(id)
		if n == nil {
			var err error
			if n, err = j.s.newNode(id, v); err != nil {
				return Edge{}, nil, err
			}
		}
		made[v] = n
		fresh = append(fresh, n)
	}
	return j.adopt(g, made, fresh)
}

// variant is empty for a vertex that, with all its ancestors, uses the cache, is of no version and
// under no policies.
func variant(v *graph.Vertex, known map[*graph.Vertex]digest.Digest) digest.Digest {
	plain := !v.IgnoreCache && v.Compat == 0 && v.Policies == ""
	for _, in := range v.Inputs {
		plain = plain && known[in.Vertex] == ""
	}
	if plain {
		return ""
	}
	h := digest.Canonical.Digester()
	if v.IgnoreCache {
		_, _ = h.Hash().Write([]byte("ignore"))
	}
	if v.Compat != 0 {
		_, _ = fmt.Fprintf(h.Hash(), "version %d", v.Compat)
	}
	if v.Policies != "" {
		_, _ = fmt.Fprintf(h.Hash(), "policies %s", v.Policies)
	}
	for _, in := range v.Inputs {
		_, _ = h.Hash().Write([]byte{0})
		_, _ = h.Hash().Write([]byte(known[in.Vertex]))
	}
	return h.Digest()
}

// newNode makes a node that nobody knows yet, with what can be computed without the lock.
func (s *Scheduler) newNode(id nodeID, v *graph.Vertex) (*node, error) {
	op, err := s.factory(v)
	if err != nil {
		return nil, err
	}
	n := &node{id: id, vertex: v, op: op, jobs: map[*Job]struct{}{}}
	n.progress = newProgress(v)
	n.env = &Env{Vertex: v, Scope: scopeOf(n.progress, v.Digest), Blobs: &n.blobs, founding: !op.Static(), resources: v.Resources}
	if op.Static() {
		n.identity, err = op.Identify(context.Background(), nil)
		if err != nil {
			n.err = s.vertexError(v, phaseIdentify.prefix(), err)
		}
	}
	return n, nil
}

// adopt puts the nodes of a graph into the scheduler, inputs first. A node that another Job put
// there meanwhile is used instead.
func (j *Job) adopt(g *graph.Graph, made map[*graph.Vertex]*node, order []*node) (Edge, []*node, error) {
	s := j.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.closed {
		return Edge{}, nil, errJobClosed
	}
	if unknown := j.unknownTo(order); len(unknown) > 0 {
		return Edge{}, unknown, nil
	}
	var joined []*node
	for i, v := range g.Vertices {
		n := order[i]
		if known := s.nodes[n.id]; known != nil {
			n = known
			n.env.relax(v.Resources)
		} else {
			if n.held {
				// It was there when the graph was loaded, and its last Job has gone since.
				var err error
				if n, err = s.newNode(n.id, v); err != nil {
					return Edge{}, nil, err
				}
			}
			n.held = true
			for _, in := range v.Inputs {
				child := made[in.Vertex]
				n.inputs = append(n.inputs, &input{node: child, output: in.Output})
				child.parents = append(child.parents, n)
			}
			s.nodes[n.id] = n
		}
		made[v] = n
		if _, ok := j.nodes[n.id]; !ok {
			j.nodes[n.id] = n
			n.jobs[j] = struct{}{}
			n.env.add(j)
			joined = append(joined, n)
		}
	}
	j.mu.Lock()
	for _, n := range joined {
		if len(n.inputs) == 0 {
			j.blobs = append(j.blobs, &n.blobs)
		}
	}
	j.mu.Unlock()
	announce(j, joined)
	return Edge{node: made[g.Root.Vertex], output: g.Root.Output}, nil, nil
}

// announce tells a Job of its new vertices, users before inputs, and what they have told already.
func announce(j *Job, nodes []*node) {
	var b event.Batch
	for i := len(nodes) - 1; i >= 0; i-- {
		b.Vertices = append(b.Vertices, nodes[i].progress.blank())
	}
	if len(b.Vertices) > 0 {
		j.feed.Emit(b)
	}
	for _, n := range nodes {
		n.progress.join(j)
	}
}

// Close lets go of all nodes. Wants of the Job that are still waiting end with an error.
func (j *Job) Close() {
	s := j.s
	s.mu.Lock()
	if j.closed {
		s.mu.Unlock()
		return
	}
	j.closed = true
	var gone []*node
	for _, n := range j.nodes {
		for i := len(n.waiters) - 1; i >= 0; i-- {
			if w := n.waiters[i].want; w.job == j {
				w.finish(nil, errJobClosed)
			}
		}
		delete(n.jobs, j)
		n.env.remove(j)
		n.progress.leave(j)
		if len(n.jobs) == 0 {
			delete(s.nodes, n.id)
			gone = append(gone, n)
		}
	}
	j.nodes = nil
	released := s.drop(gone)
	s.pump()
	s.mu.Unlock()
	for _, r := range released {
		r.Release()
	}
}

// drop unlinks nodes that no Job holds, and returns what they held.
func (s *Scheduler) drop(gone []*node) []releaser {
	dead := make(map[*node]bool, len(gone))
	for _, n := range gone {
		dead[n] = true
	}
	touched := map[*node]bool{}
	var released []releaser
	for _, n := range gone {
		n.gone = true
		n.progress.release()
		if n.cancel != nil {
			n.cancel(errNobodyWaits)
		}
		released = append(released, n.takeResults()...)
		for _, in := range n.inputs {
			if !dead[in.node] {
				touched[in.node] = true
			}
		}
	}
	for n := range touched {
		kept := n.parents[:0:0]
		for _, p := range n.parents {
			if !dead[p] {
				kept = append(kept, p)
			}
		}
		n.parents = kept
	}
	return released
}

// takeResults removes the results of a node, and what its error holds, and returns them.
func (n *node) takeResults() []releaser {
	var rs []releaser
	if n.left != nil {
		rs = append(rs, n.left)
		n.left = nil
	}
	for _, o := range n.outputs {
		if o.result != nil {
			rs = append(rs, o.result)
			o.result = nil
		}
	}
	return rs
}
