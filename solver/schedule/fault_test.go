package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// clients answer to sessions: an error if that one cannot serve.
type clients func(id string) error

// any asks the sessions of a group as a session.Manager does: until one serves.
func (c clients) any(g session.Group) error {
	tried := map[string]bool{}
	var faults []*session.Fault
	for {
		ids := slices.DeleteFunc(g.SessionIDs(), func(id string) bool { return tried[id] })
		if len(ids) == 0 {
			break
		}
		tried[ids[0]] = true
		err := c(ids[0])
		if err == nil {
			return nil
		}
		faults = append(faults, &session.Fault{ID: ids[0], Err: err})
	}
	if len(faults) == 0 {
		return errors.New("nobody was asked")
	}
	return session.Refuse(faults...)
}

// first asks the first session alone, as a registry does that answers in the name of one of them.
func (c clients) first(g session.Group) error {
	ids := g.SessionIDs()
	if len(ids) == 0 {
		return errors.New("nobody was asked")
	}
	if err := c(ids[0]); err != nil {
		return session.BlameAll(ids[:1], err)
	}
	return nil
}

// pair is two jobs that want one vertex at the same time: the one of a came first.
type pair struct {
	w      *world
	ja, jb *schedule.Job
	a, b   <-chan error
	told   map[string]*feed.Feed
}

// meet has the jobs of sessions a and b wait for a vertex whose first run begins, with a alone, before
// gate is closed.
func meet(t *testing.T, as []string, gate chan struct{}, ask func(g session.Group) error) *pair {
	t.Helper()
	begun := make(chan struct{}, 10)
	p := &pair{told: map[string]*feed.Feed{"a": feed.New(""), "b": feed.New("")}}
	p.w = newWorld(t, &spec{name: "step", run: func(_ context.Context, env *schedule.Env) error {
		begun <- struct{}{}
		<-gate
		return ask(env)
	}})
	c := &chart{}
	g := c.graph(c.add("step"))
	p.ja = p.w.s.NewJob(as, p.told["a"], nil)
	p.jb = p.w.s.NewJob([]string{"b"}, p.told["b"], nil)
	_, p.a = resultOf(t, p.ja, g)
	<-begun
	var e schedule.Edge
	e, p.b = resultOf(t, p.jb, g)
	for p.w.s.Waiting(e) < 2 {
		runtime.Gosched()
	}
	t.Cleanup(func() {
		p.ja.Close()
		p.jb.Close()
	})
	return p
}

func TestAFaultIsOfTheClientThatWasAskedAlone(t *testing.T) {
	broken := func(id string) error {
		if id == "b" {
			return nil
		}
		return fmt.Errorf("%s is broken", id)
	}
	for name, tc := range map[string]struct {
		as   []string
		ask  func(g session.Group) error
		aErr string
		runs int
	}{
		"the others are asked by those who can go on": {[]string{"a"}, clients(broken).any, "", 1},
		"and otherwise by another attempt":            {[]string{"a"}, clients(broken).first, "a is broken", 2},
		"a client with several is asked with all":     {[]string{"a", "a2"}, clients(broken).first, "a2 is broken", 3},
		"and is served by the one that can": {[]string{"a", "a2"}, clients(func(id string) error {
			if id == "a" {
				return errors.New("a is broken")
			}
			return nil
		}).first, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			p := meet(t, tc.as, gate, tc.ask)
			close(gate)
			require.NoError(t, <-p.b)
			aErr := <-p.a
			if tc.aErr == "" {
				require.NoError(t, aErr)
			} else {
				require.EqualError(t, aErr, tc.aErr)
				var ve *status.VertexError
				require.ErrorAs(t, aErr, &ve)
			}
			require.Equal(t, tc.runs, p.w.ran("step"))
		})
	}
}

func TestEveryClientIsToldItsOwnFault(t *testing.T) {
	gate := make(chan struct{})
	p := meet(t, []string{"a"}, gate, clients(func(id string) error { return fmt.Errorf("%s is broken", id) }).any)
	close(gate)
	for id, done := range map[string]<-chan error{"a": p.a, "b": p.b} {
		err := <-done
		require.EqualError(t, err, id+" is broken")
		var ve *status.VertexError
		require.ErrorAs(t, err, &ve)
		require.Equal(t, []string{id + " is broken"}, shownErrors(t, p.told[id]))
	}
}

func TestAFaultOfAnotherIsNotShown(t *testing.T) {
	gate := make(chan struct{})
	p := meet(t, []string{"a"}, gate, clients(func(id string) error {
		if id == "b" {
			return nil
		}
		return errors.New("a is broken")
	}).first)
	close(gate)
	require.EqualError(t, <-p.a, "a is broken")
	require.NoError(t, <-p.b)
	require.Equal(t, []string{"a is broken"}, shownErrors(t, p.told["a"]))
	require.Empty(t, shownErrors(t, p.told["b"]))
}

// shownErrors returns the errors of vertices that a client has been told, in order, once each.
func shownErrors(t *testing.T, told *feed.Feed) (texts []string) {
	t.Helper()
	told.Close()
	require.NoError(t, told.Watch(t.Context(), func(data []byte) error {
		var m controlpb.StatusResponse
		err := proto.Unmarshal(data, &m)
		for _, v := range m.GetVertexes() {
			if v.GetError() != "" {
				texts = append(texts, v.GetError())
			}
		}
		return err
	}))
	return slices.Compact(texts)
}

// What is no client's fault is everybody's, whoever was asked on the way to it.
func TestAnErrorOfTheVertexReachesAll(t *testing.T) {
	gate := make(chan struct{})
	p := meet(t, []string{"a"}, gate, func(session.Group) error { return errors.New("exit code 1") })
	close(gate)
	require.EqualError(t, <-p.a, "exit code 1")
	require.EqualError(t, <-p.b, "exit code 1")
	require.Equal(t, 1, p.w.ran("step"))
}

// A fault of a session that nobody here has is no reason to try for ever.
func TestAFaultOfAStrangerEndsTheVertex(t *testing.T) {
	gate := make(chan struct{})
	p := meet(t, []string{"a"}, gate, func(session.Group) error { return session.BlameAll([]string{"stranger"}, errors.New("gone")) })
	close(gate)
	require.EqualError(t, <-p.a, "gone")
	require.EqualError(t, <-p.b, "gone")
	require.Equal(t, 2, p.w.ran("step"))
}

func TestABuildThatWasRefusedMayAskAgain(t *testing.T) {
	var mended atomic.Bool
	w := newWorld(t, &spec{name: "step", run: func(_ context.Context, env *schedule.Env) error {
		return clients(func(string) error {
			if mended.Load() {
				return nil
			}
			return errors.New("broken")
		}).any(env)
	}})
	c := &chart{}
	g := c.graph(c.add("step"))
	j := w.s.NewJob([]string{"a"}, feed.New(""), nil)
	defer j.Close()
	_, err := w.buildIn(j, g)
	require.EqualError(t, err, "broken")
	mended.Store(true)
	_, err = w.buildIn(j, g)
	require.NoError(t, err)
}

func TestWhatABuildMayNotHaveIsNothingToTheOthers(t *testing.T) {
	w := newWorld(t, &spec{name: "step", run: func(_ context.Context, env *schedule.Env) error {
		return env.Check(func(v any) error {
			if v == "a" {
				return errors.New("not for you")
			}
			return nil
		})
	}})
	c := &chart{}
	g := c.graph(c.add("step"))
	ja, jb := w.s.NewJob([]string{"a"}, feed.New(""), "a"), w.s.NewJob([]string{"b"}, feed.New(""), "b")
	defer ja.Close()
	defer jb.Close()
	_, err := ja.Load(context.Background(), g)
	require.NoError(t, err)
	_, err = w.buildIn(jb, g)
	require.NoError(t, err, "a holds it, and waits for nothing")
	_, err = w.buildIn(ja, g)
	require.NoError(t, err, "it is there")
}

// TestRandomClientsAreToldTheirOwnFaults has many clients share few steps, at random times. Those whose
// clients serve must succeed; those whose do not must be told so, or be served along.
func TestRandomClientsAreToldTheirOwnFaults(t *testing.T) {
	const people, steps, rounds = 64, 4, 6
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			answer := clients(func(id string) error {
				if strings.HasPrefix(id, "good") {
					return nil
				}
				return fmt.Errorf("no thanks, says %s", id)
			})
			specs := []*spec{{name: "src", source: true, value: fixed("v"), identify: func(_ context.Context, env *schedule.Env) error {
				return answer.any(env)
			}}}
			for i := range steps {
				specs = append(specs, &spec{name: fmt.Sprint("step", i), run: func(ctx context.Context, env *schedule.Env) error {
					for range rand.IntN(200) {
						runtime.Gosched()
					}
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if rand.IntN(2) == 0 {
						return answer.first(env)
					}
					return answer.any(env)
				}})
			}
			w := newWorld(t, specs...)
			var wg sync.WaitGroup
			for n := range people {
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				wg.Go(func() {
					for round := range rounds {
						w.randomClient(rng, fmt.Sprint(n, "-", round), steps)
					}
				})
			}
			wg.Wait()
		})
	}
}

func (w *world) randomClient(rng *rand.Rand, name string, steps int) {
	var sessions []string
	good := false
	for i := range 1 + rng.IntN(2) {
		kind := []string{"good", "bad"}[rng.IntN(2)]
		good = good || kind == "good"
		sessions = append(sessions, fmt.Sprintf("%s %s.%d", kind, name, i))
	}
	if rng.IntN(4) == 0 {
		w.mu.Lock()
		clear(w.stored)
		w.mu.Unlock()
	}
	c := &chart{}
	e := c.add("step0")
	if rng.IntN(2) == 0 {
		e = c.add("src")
	}
	for i := range steps - 1 {
		e = c.add(fmt.Sprint("step", i+1), e)
		e.Vertex.IgnoreCache = rng.IntN(3) == 0
	}
	j := w.s.NewJob(sessions, feed.New(""), nil)
	defer j.Close()
	_, err := w.buildIn(j, c.graph(e))
	if good {
		require.NoError(w.t, err)
	} else if err != nil {
		require.ErrorContains(w.t, err, "no thanks, says bad "+name+".")
	}
}
