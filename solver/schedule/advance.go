package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/solver/key"
)

// advance takes a node as far as it goes without waiting. It is called under the lock, from pump.
func (s *Scheduler) advance(n *node) {
	n.lacking = 0
	if n.err != nil || n.cancel != nil || n.wanted() == wantNothing {
		return
	}
	n.phase = phaseIdle
	if n.identity == nil {
		s.startIdentify(n)
		return
	}
	if n.done() || s.inputFailed(n) {
		return
	}
	if !s.know(n) {
		n.phase = phaseKeys
		return
	}
	if n.missing() == nil {
		n.phase = phaseKnown
		return
	}
	if s.startLoad(n) {
		return
	}
	if !n.vertex.IgnoreCache {
		if !s.matchByContent(n) {
			return
		}
		if s.startLoad(n) {
			return
		}
	}
	if !s.haveInputs(n, func(*input, InputIdentity) bool { return true }) {
		n.phase = phaseRest
		return
	}
	if s.startDigest(n) {
		return
	}
	if s.follow(n) {
		n.phase = phaseWait
		return
	}
	s.startRun(n)
}

// done tells whether everybody has what they wait for.
func (n *node) done() bool {
	for _, o := range n.outputs {
		if !o.satisfied(o.want) {
			return false
		}
	}
	return true
}

// missing returns the outputs whose result is wanted and not there.
func (n *node) missing() []int {
	var is []int
	for i, o := range n.outputs {
		if o.want == wantResult && o.result == nil {
			is = append(is, i)
		}
	}
	return is
}

// inputFailed ends a node whose input has failed.
func (s *Scheduler) inputFailed(n *node) bool {
	for _, in := range n.inputs {
		if in.asked != wantNothing && in.node.err != nil {
			n.err = in.node.err
			s.changed(n)
			return true
		}
	}
	return false
}

func (s *Scheduler) startIdentify(n *node) {
	s.start(n, phaseIdentify, func(ctx context.Context) (func(), error) {
		done := n.progress.start()
		id, err := n.op.Identify(ctx, n.env)
		done(err, ctx)
		if err != nil {
			return nil, s.vertexError(n.vertex, phaseIdentify.prefix(), err)
		}
		return func() {
			n.identity = id
			n.env.founded()
			s.changed(n)
		}, nil
	})
}

// know finds the keys that the wanted outputs have by definition. It returns false if inputs
// have to be asked for theirs first.
func (s *Scheduler) know(n *node) bool {
	unknown := false
	for _, o := range n.outputs {
		unknown = unknown || o.want != wantNothing && !o.known && o.result == nil
	}
	if !unknown {
		return true
	}
	free := n.vertex.IgnoreCache || n.identity.Unstored
	var alts [][]key.Alt
	if !free && len(n.inputs) > 0 {
		lacking := 0
		for i, in := range n.inputs {
			s.ask(n, i, wantKeys)
			if !in.get().satisfied(wantKeys) {
				lacking++
			}
		}
		if n.lacking = lacking; lacking > 0 {
			return false
		}
		alts = n.alternatives((*output).matchKeys)
	}
	for i, o := range n.outputs {
		if o.want == wantNothing || o.known || o.result != nil {
			continue
		}
		o.known = true
		switch {
		case free:
		case len(n.inputs) == 0:
			o.keys = n.roots(i)
		case alts != nil:
			o.keys = s.keys.Find(key.Op{Digest: n.identity.Keys[0], Output: i}, alts)
		}
	}
	s.changed(n)
	return true
}

// roots returns the keys of an output of a vertex without inputs.
func (n *node) roots(output int) []key.ID {
	ids := make([]key.ID, len(n.identity.Keys))
	for i, k := range n.identity.Keys {
		ids[i] = key.Root(k, output)
	}
	return ids
}

// alternatives returns for each input the keys it is known under, taken from outputs by keysOf,
// and by its content; nil if an input is known under none.
func (n *node) alternatives(keysOf func(*output) []key.ID) [][]key.Alt {
	alts := make([][]key.Alt, len(n.inputs))
	for i, in := range n.inputs {
		o := in.get()
		for _, id := range keysOf(o) {
			alts[i] = append(alts[i], key.Alt{Key: id, Selector: n.identity.Inputs[i].Selector})
		}
		if in.content != "" && in.gen == o.gen {
			alts[i] = append(alts[i], key.Alt{Key: key.Content(in.content)})
		}
		if len(alts[i]) == 0 {
			return nil
		}
	}
	return alts
}

// ask wants an input at a level, on behalf of those who wait for the node.
func (s *Scheduler) ask(n *node, i int, l level) {
	in := n.inputs[i]
	if in.asked >= l {
		return
	}
	in.asked = l
	for _, w := range n.waiters {
		s.join(w.want, in.node, in.output, min(l, w.level))
	}
}

// haveInputs asks for the results of the inputs that want picks, and tells whether all are there.
func (s *Scheduler) haveInputs(n *node, want func(*input, InputIdentity) bool) bool {
	lacking := 0
	for i, in := range n.inputs {
		if !want(in, n.identity.Inputs[i]) {
			continue
		}
		s.ask(n, i, wantResult)
		if in.get().result == nil {
			lacking++
		}
	}
	n.lacking = lacking
	return lacking == 0
}

// matchByContent finds keys with the help of results and digests of inputs. It returns false if
// it has to wait for them.
func (s *Scheduler) matchByContent(n *node) bool {
	if len(n.inputs) == 0 || n.identity.Unstored {
		return true
	}
	needed := func(in *input, id InputIdentity) bool {
		return id.Content != nil || len(in.get().matchKeys()) == 0
	}
	if !s.haveInputs(n, needed) {
		n.phase = phaseInputs
		return false
	}
	if s.startDigest(n) {
		return false
	}
	alts := n.alternatives((*output).matchKeys)
	if alts == nil {
		return true
	}
	for _, i := range n.missing() {
		o := n.outputs[i]
		o.keys = s.keys.Find(key.Op{Digest: n.identity.Keys[0], Output: i}, alts)
	}
	return true
}

// startDigest computes the digests of contents that are not known yet.
func (s *Scheduler) startDigest(n *node) bool {
	type job struct {
		in     *input
		fn     func(context.Context, *Env, Result) (digest.Digest, error)
		result Result
		gen    int
	}
	var jobs []job
	for i, in := range n.inputs {
		o, fn := in.get(), n.identity.Inputs[i].Content
		if fn == nil || o.result == nil || in.content != "" && in.gen == o.gen {
			continue
		}
		jobs = append(jobs, job{in: in, fn: fn, result: o.result.Clone(), gen: o.gen})
	}
	if len(jobs) == 0 {
		return false
	}
	s.start(n, phaseInputs, func(ctx context.Context) (func(), error) {
		digests := make([]digest.Digest, len(jobs))
		errs := make([]error, len(jobs))
		eg, gctx := errgroup.WithContext(ctx)
		for i, j := range jobs {
			eg.Go(func() (err error) {
				defer j.result.Release()
				digests[i], err = j.fn(gctx, n.env, j.result)
				errs[i] = err
				return err
			})
		}
		if err := eg.Wait(); err != nil {
			releaseOthers(errs, err)
			return s.lostInput(n, phaseInputs, err, func() error {
				n.progress.start()(err, ctx)
				return s.vertexError(n.vertex, phaseInputs.prefix(), err)
			})
		}
		return func() {
			for i, j := range jobs {
				j.in.content, j.in.gen = digests[i], j.gen
			}
		}, nil
	})
	return true
}

// releaseOthers releases what errors hold that nobody is told of, because kept is told.
func releaseOthers(errs []error, kept error) {
	for _, err := range errs {
		if h := leftBy(err); h != nil && h != leftBy(kept) {
			h.Release()
		}
	}
}

// lostInput handles an error of work on the inputs: if it says that a result is lost, the inputs
// that came from the cache are made anew; otherwise it is the error that fail returns.
func (s *Scheduler) lostInput(n *node, p phase, err error, fail func() error) (func(), error) {
	if !errors.Is(err, ErrLost) {
		return nil, fail()
	}
	return func() {
		again := false
		for _, in := range n.inputs {
			again = s.forget(in.node, in.output) || again
		}
		n.tried++
		if !again || n.tried > maxTries {
			s.failed(n, p, fail())
		}
	}, nil
}

// forget drops the result of an output, so that it is found elsewhere or made anew.
func (s *Scheduler) forget(n *node, output int) bool {
	o := n.output(output)
	if o.result == nil || n.tried > maxTries {
		return false
	}
	if n.skip == nil {
		n.skip = map[string]bool{}
	}
	n.skip[o.result.ID()] = true
	n.tried++
	lost := o.result
	o.result, o.match, o.store = nil, nil, nil
	o.gen++
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		lost.Release()
	}()
	s.enqueue(n)
	return true
}

// invalidate forgets the result of an edge that a reader found lost.
func (s *Scheduler) invalidate(e Edge, r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := e.node.output(e.output); o.result != nil && o.result.ID() == r.ID() {
		s.forget(e.node, e.output)
	}
	s.pump()
}

// candidate returns the newest stored result of an output that is not known to be lost.
func (s *Scheduler) candidate(n *node, o *output) (id string, ok bool) {
	var all []key.Result
	for _, k := range o.keys {
		all = append(all, s.keys.Results(k)...)
	}
	all = slices.DeleteFunc(all, func(r key.Result) bool { return n.skip[r.ID] })
	if len(all) == 0 {
		return "", false
	}
	newest := slices.MaxFunc(all, func(a, b key.Result) int { return cmp.Compare(a.CreatedAt.UnixNano(), b.CreatedAt.UnixNano()) })
	return newest.ID, true
}

// startLoad opens stored results of the missing outputs, if there are any.
func (s *Scheduler) startLoad(n *node) bool {
	if n.vertex.IgnoreCache && !n.ran {
		return false
	}
	ids := map[int]string{}
	for _, i := range n.missing() {
		if id, ok := s.candidate(n, n.outputs[i]); ok {
			ids[i] = id
		}
	}
	if len(ids) == 0 {
		return false
	}
	s.start(n, phaseLoad, func(ctx context.Context) (func(), error) {
		loaded := map[int]Result{}
		var bad []string
		for i, id := range ids {
			r, err := s.load(ctx, id)
			switch {
			case err == nil:
				loaded[i] = r
			case ctx.Err() != nil:
				for _, r := range loaded {
					r.Release()
				}
				return nil, err
			default:
				// Whatever the reason, a result that can't be opened is a miss.
				bad = append(bad, id)
			}
		}
		return func() { s.loaded(n, loaded, bad) }, nil
	})
	return true
}

func (s *Scheduler) loaded(n *node, loaded map[int]Result, bad []string) {
	for i, r := range loaded {
		o := n.outputs[i]
		o.result, o.match, o.store = r, o.keys, o.keys
	}
	if len(bad) > 0 {
		if n.skip == nil {
			n.skip = map[string]bool{}
		}
		for _, id := range bad {
			n.skip[id] = true
		}
	}
	if len(n.missing()) == 0 {
		n.progress.cached()
	}
	if len(loaded) > 0 {
		s.changed(n)
	}
}

// follow lets a node wait for another one that runs what would match it.
func (s *Scheduler) follow(n *node) bool {
	// A build op does nothing itself; who runs it along joins the steps of its definition, and goes on
	// with them if the other leaves.
	if n.vertex.IgnoreCache || n.identity.Unstored || n.vertex.Op.GetBuild() != nil {
		return false
	}
	mine := n.alternatives((*output).matchKeys)
	if mine == nil && len(n.inputs) > 0 {
		return false
	}
	for _, other := range s.running[runKey(n.identity.Keys[0])] {
		if other.matches(mine) {
			other.followers = append(other.followers, n)
			return true
		}
	}
	return false
}

// matches tells whether each input of a running node shares a key with the alternatives alts.
func (n *node) matches(alts [][]key.Alt) bool {
	mine := n.alternatives(func(o *output) []key.ID { return o.store })
	if len(mine) != len(alts) {
		return false
	}
	for i := range mine {
		if !slices.ContainsFunc(mine[i], func(a key.Alt) bool { return slices.Contains(alts[i], a) }) {
			return false
		}
	}
	return true
}

func (s *Scheduler) startRun(n *node) {
	rk := runKey(n.identity.Keys[0])
	s.running[rk] = append(s.running[rk], n)
	inputs := make([]Result, len(n.inputs))
	for i, in := range n.inputs {
		inputs[i] = in.get().result.Clone()
	}
	var ended sync.Once
	end := func() {
		ended.Do(func() {
			s.running[rk] = slices.DeleteFunc(s.running[rk], func(m *node) bool { return m == n })
			if len(s.running[rk]) == 0 {
				delete(s.running, rk)
			}
			for _, f := range n.followers {
				s.enqueue(f)
			}
			n.followers = nil
		})
	}
	s.start(n, phaseRun, func(ctx context.Context) (then func(), err error) {
		defer func() {
			for _, r := range inputs {
				r.Release()
			}
			if err != nil {
				s.mu.Lock()
				end()
				s.mu.Unlock()
			}
		}()
		done := n.progress.start()
		results, err := n.op.Run(ctx, n.env, inputs)
		done(err, ctx)
		if err != nil {
			return s.lostInputRun(n, err, end)
		}
		return func() {
			s.store(n, results)
			end()
		}, nil
	})
}

func (s *Scheduler) lostInputRun(n *node, cause error, end func()) (func(), error) {
	then, err := s.lostInput(n, phaseRun, cause, func() error { return s.vertexError(n.vertex, phaseRun.prefix(), cause) })
	if then == nil {
		return nil, err
	}
	return func() {
		end()
		then()
	}, nil
}

// store takes the results of a run and remembers them under every key.
func (s *Scheduler) store(n *node, results []Result) {
	for _, i := range n.missing() {
		if i >= len(results) {
			n.err = s.vertexError(n.vertex, "", fmt.Errorf("invalid response from %s need %d index but %d results received", opKind(n.vertex), i, len(results)))
		}
	}
	n.ran = true
	fresh := n.vertex.IgnoreCache
	for _, in := range n.inputs {
		fresh = fresh || in.get().fresh
	}
	var alts [][]key.Alt
	if !n.identity.Unstored {
		alts = n.alternatives(func(o *output) []key.ID { return o.store })
	}
	now := time.Now()
	for i, r := range results {
		o := n.output(i)
		if o.result != nil {
			r.Release()
			continue
		}
		o.result, o.known, o.fresh = r, true, fresh
		switch {
		case n.identity.Unstored:
		case len(n.inputs) == 0:
			o.store = n.roots(i)
		case alts != nil:
			o.store = []key.ID{s.keys.Save(key.Op{Digest: n.identity.Keys[0], Output: i}, alts)}
		}
		for _, id := range o.store {
			s.keys.AddResult(id, key.Result{ID: r.ID(), CreatedAt: now})
		}
		if !fresh {
			o.match = o.store
		}
	}
	s.changed(n)
}
