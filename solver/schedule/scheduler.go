package schedule

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/key"
)

// maxTries bounds how often a result that was found and then lost is made anew.
const maxTries = 5

// Scheduler holds the nodes of all Jobs.
type Scheduler struct {
	keys    *key.Store
	factory Factory
	load    Loader

	mu    sync.Mutex
	nodes map[nodeID]*node
	queue []*node
	// running are the nodes in phaseRun by the key of their op: what another node waits for if
	// it would yield the same.
	running map[runKey][]*node
	// work counts goroutines, for Wait.
	work sync.WaitGroup
}

type runKey string

// New makes a scheduler. It remembers results in keys, makes ops by factory and opens stored
// results by load.
func New(keys *key.Store, factory Factory, load Loader) *Scheduler {
	return &Scheduler{
		keys: keys, factory: factory, load: load,
		nodes: map[nodeID]*node{}, running: map[runKey][]*node{},
	}
}

// Wait returns when no work runs any more. It is called after the last Job was closed.
func (s *Scheduler) Wait() { s.work.Wait() }

// Nodes returns how many vertices are held by Jobs.
func (s *Scheduler) Nodes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.nodes)
}

func (s *Scheduler) peek(id nodeID) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[id]
}

func (s *Scheduler) enqueue(n *node) {
	if !n.queued {
		n.queued = true
		s.queue = append(s.queue, n)
	}
}

// pump advances nodes until none has anything left to do without waiting.
func (s *Scheduler) pump() {
	for len(s.queue) > 0 {
		n := s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		n.queued = false
		s.advance(n)
	}
	s.queue = s.queue[:0]
}

// changed tells those who depend on a node that it has something new.
func (s *Scheduler) changed(n *node) {
	for _, p := range n.parents {
		switch {
		case len(p.waiters) == 0:
		case p.lacking > 1 && n.err == nil:
			p.lacking--
		default:
			s.enqueue(p)
		}
	}
	for i := len(n.waiters) - 1; i >= 0; i-- {
		if i < len(n.waiters) {
			s.settle(n.waiters[i].want)
		}
	}
}

// settle ends a want if its root has come to an end.
func (s *Scheduler) settle(w *Want) {
	n := w.root.node
	if n.err != nil {
		w.finish(nil, n.err)
		return
	}
	if o := n.output(w.root.output); o.result != nil {
		w.finish(o.result.Clone(), nil)
	}
}

// start runs fn in a goroutine as the work of n. fn gets a context that ends when nobody waits;
// what it returns is called under the lock, with the context's error. A panic becomes an error of
// the vertex: it ends the builds that wanted it and nothing else.
func (s *Scheduler) start(n *node, p phase, fn func(ctx context.Context) (func(), error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	n.phase, n.cancel = p, cancel
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		then, err := protect(ctx, fn)
		var late []releaser
		defer func() {
			for _, r := range late {
				r.Release()
			}
		}()
		s.mu.Lock()
		defer s.mu.Unlock()
		n.cancel = nil
		n.phase = phaseIdle
		switch {
		case err == nil:
			then()
		case ctx.Err() != nil:
			// Whoever waits now has come after the cancellation and begins anew.
			if h := leftBy(err); h != nil {
				late = append(late, h)
			}
		default:
			s.failed(n, p, err)
		}
		cancel(nil)
		if n.gone {
			late = append(late, n.takeResults()...)
		} else {
			s.enqueue(n)
		}
		s.pump() // also if the node has gone: others may have waited for what it did
	}()
}

func protect(ctx context.Context, fn func(ctx context.Context) (func(), error)) (then func(), err error) {
	defer func() {
		if r := recover(); r != nil {
			err = status.WithStack(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	return fn(ctx)
}

// failed ends a node with the error of a phase, or only some of those who wait for it.
func (s *Scheduler) failed(n *node, p phase, err error) {
	if OfRequester(err) && s.refuse(n, p, err) {
		return
	}
	n.err, n.left = err, leftBy(err)
	n.progress.failed(err)
	s.changed(n)
}

// refuse ends the wants of the Jobs that an error is the fault of. Others, who wait or come later, try
// again. It returns false if that would be no different from what has failed.
func (s *Scheduler) refuse(n *node, p phase, err error) bool {
	founder := n.env.founder()
	refused, again := n.env.blame(err, func(own error) error { return s.vertexError(n.vertex, p.prefix(), own) })
	if !again {
		return false
	}
	if own := refused[founder]; own != nil && !founder.closed {
		if founder.refused == nil {
			founder.refused = map[*node]error{}
		}
		founder.refused[n] = own
	}
	for i := len(n.waiters) - 1; i >= 0; i-- {
		if i >= len(n.waiters) {
			continue // ended with another one
		}
		if w := n.waiters[i].want; refused[w.job] != nil {
			n.progress.refused(w.job, refused[w.job])
			w.finish(nil, refused[w.job])
		}
	}
	if len(n.waiters) == 0 {
		n.progress.idle()
	}
	return true
}

// vertexError says which vertex an error is of, and where in the user's files that stands.
func (s *Scheduler) vertexError(v *graph.Vertex, prefix string, err error) error {
	if prefix != "" {
		err = fmt.Errorf("%s: %w", prefix, err)
	}
	var inner *status.VertexError
	if errors.As(err, &inner) {
		return err
	}
	for _, src := range v.Sources {
		err = status.WithSource(err, src.Info, src.Ranges...)
	}
	return status.WithVertex(err, string(v.Digest))
}
