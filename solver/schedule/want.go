package schedule

import (
	"context"
	"errors"
)

var errJobClosed = errors.New("build has ended")

// Want is one request for a result. It has joined every node that works for it.
type Want struct {
	job  *Job
	root Edge
	// nodes are those that the Want may have joined.
	nodes []*node
	done  chan struct{}

	// Guarded by the scheduler's lock until done is closed.
	ended  bool
	result Result
	err    error
}

// finish ends the want. The result, if any, is the want's own handle.
func (w *Want) finish(r Result, err error) {
	if w.ended {
		if r != nil {
			r.Release()
		}
		return
	}
	w.ended, w.result, w.err = true, r, err
	w.leave()
	close(w.done)
}

// leave takes the want off all nodes, and cancels the work that nobody waits for then.
func (w *Want) leave() {
	for _, n := range w.nodes {
		for i := range n.waiters {
			if n.waiters[i].want == w {
				n.waiters = append(n.waiters[:i:i], n.waiters[i+1:]...)
				n.relax()
				break
			}
		}
	}
	w.nodes = nil
}

// Result returns an output, made or found if need be. The caller releases it. The error of a
// vertex is a *status.VertexError; when ctx ends the error is its cause.
func (j *Job) Result(ctx context.Context, e Edge) (Result, error) {
	s := j.s
	w := &Want{job: j, root: e, done: make(chan struct{})}
	s.mu.Lock()
	if j.closed {
		s.mu.Unlock()
		return nil, errJobClosed
	}
	if err := j.refusedBelow(e.node); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.join(w, e.node, e.output, wantResult)
	s.settle(w)
	s.pump()
	s.mu.Unlock()

	select {
	case <-w.done:
	case <-ctx.Done():
		s.mu.Lock()
		w.finish(nil, context.Cause(ctx))
		s.pump()
		s.mu.Unlock()
	}
	if w.err != nil {
		// The context may have ended at the same moment; then its cause says why.
		if ctx.Err() != nil && w.result == nil && errors.Is(w.err, errNobodyWaits) {
			return nil, context.Cause(ctx)
		}
		return nil, w.err
	}
	return w.result, nil
}

// Use calls fn with results, in the order of edges, and again with results made anew if fn finds
// any of them lost. The results are released afterwards.
func (j *Job) Use(ctx context.Context, edges []Edge, fn func([]Result) error) error {
	for try := 0; ; try++ {
		again, err := j.use(ctx, edges, fn)
		if !again || try == maxTries {
			return err
		}
	}
}

func (j *Job) use(ctx context.Context, edges []Edge, fn func([]Result) error) (lost bool, err error) {
	results := make([]Result, 0, len(edges))
	defer func() {
		for _, r := range results {
			r.Release()
		}
	}()
	for _, e := range edges {
		r, err := j.Result(ctx, e)
		if err != nil {
			return false, err
		}
		results = append(results, r)
	}
	err = fn(results)
	if !errors.Is(err, ErrLost) {
		return false, err
	}
	for i, e := range edges {
		j.s.invalidate(e, results[i])
	}
	return true, err
}

// join makes w a waiter of an output and of all that already works for it.
func (s *Scheduler) join(w *Want, n *node, output int, l level) {
	type step struct {
		n      *node
		output int
		l      level
	}
	stack := []step{{n, output, l}}
	for len(stack) > 0 {
		st := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n, o := st.n, st.n.output(st.output)
		if n.err != nil || o.satisfied(st.l) && o.want >= st.l {
			continue
		}
		known := false
		for i := range n.waiters {
			if n.waiters[i].want == w {
				known = true
				if n.waiters[i].level >= st.l && o.want >= st.l {
					goto next
				}
				n.waiters[i].level = max(n.waiters[i].level, st.l)
				break
			}
		}
		if !known {
			n.waiters = append(n.waiters, waiter{w, st.l})
			w.nodes = append(w.nodes, n)
			n.env.readmit(w.job)
		}
		o.want = max(o.want, st.l)
		s.enqueue(n)
		for _, in := range n.inputs {
			if in.asked != wantNothing {
				stack = append(stack, step{in.node, in.output, min(in.asked, st.l)})
			}
		}
	next:
	}
}

// relax lowers what is wanted of a node to what its remaining waiters want, and cancels its work
// if that is nothing.
func (n *node) relax() {
	l := n.wanted()
	if l == wantResult {
		return
	}
	for _, o := range n.outputs {
		o.want = min(o.want, l)
	}
	for _, in := range n.inputs {
		in.asked = min(in.asked, l)
	}
	if n.cancel != nil && (l == wantNothing || n.phase != phaseIdentify) {
		n.cancel(errNobodyWaits)
	}
	switch n.phase {
	case phaseKeys, phaseInputs, phaseRest, phaseWait:
		n.phase = phaseIdle
	}
}
