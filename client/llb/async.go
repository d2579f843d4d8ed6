package llb

import "context"

// deferred is a State that follows from prev by a function that is called when the graph is
// marshalled.
type deferred struct {
	prev State
	f    func(context.Context, *resolver, State) (State, error)
}

// AsyncFunc derives a State. It is called at most once per Marshal; c are the options of that.
type AsyncFunc func(ctx context.Context, s State, c Constraints) (State, error)

// Async defers f until the result is marshalled. What is derived from the returned State waits
// for it in turn.
func (s State) Async(f AsyncFunc) State {
	return State{deferred: &deferred{prev: s, f: func(ctx context.Context, r *resolver, s State) (State, error) {
		return f(ctx, s, r.constraints)
	}}}
}

// then applies f to s now, or when s is known.
func (s State) then(f func(State) State) State {
	if s.deferred == nil {
		return f(s)
	}
	return State{deferred: &deferred{prev: s, f: func(_ context.Context, _ *resolver, s State) (State, error) {
		return f(s), nil
	}}}
}

// resolver holds what one Marshal knows: its options and the outcome of deferred States.
type resolver struct {
	constraints Constraints
	known       map[*deferred]State
}

func newResolver(opts []MarshalOption) *resolver {
	r := &resolver{known: map[*deferred]State{}}
	for _, o := range opts {
		o.applyMarshal(&r.constraints)
	}
	return r
}

// resolve returns what s turns out to be. It walks chains of deferred States without recursion.
func (r *resolver) resolve(ctx context.Context, s State) (State, error) {
	// A task is either a State to derive from the one at hand or, once that is done, a State
	// whose outcome is the one at hand.
	type task struct {
		d    *deferred
		done bool
	}
	var tasks []task
	for {
		if d := s.deferred; d != nil {
			if known, ok := r.known[d]; ok {
				s = known
				continue
			}
			tasks = append(tasks, task{d: d})
			s = d.prev
			continue
		}
		if s.err != nil {
			return State{}, s.err
		}
		if len(tasks) == 0 {
			return s, nil
		}
		t := &tasks[len(tasks)-1]
		if t.done {
			r.known[t.d] = s
			tasks = tasks[:len(tasks)-1]
			continue
		}
		t.done = true
		if err := context.Cause(ctx); err != nil {
			return State{}, err
		}
		var err error
		if s, err = t.d.f(ctx, r, s); err != nil {
			return State{}, err
		}
	}
}
