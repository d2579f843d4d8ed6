package schedule_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// expected computes the value of a vertex the naive way.
func expected(w *world, e graph.Edge) string {
	sp := w.specs[e.Vertex.Name]
	v := sp.name
	if sp.source {
		v = sp.value()
	}
	for _, in := range e.Vertex.Inputs {
		v += "(" + expected(w, in) + ")"
	}
	return v
}

// TestRandomBuildsAgreeWithTheModel runs random graphs over few vertices from many goroutines,
// some cancelled, with results being lost at random: what is not cancelled must yield what the
// naive computation does, and nothing may hang or leak.
func TestRandomBuildsAgreeWithTheModel(t *testing.T) {
	const names, jobs, rounds = 12, 8, 30
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			var specs []*spec
			for i := range names {
				specs = append(specs, &spec{
					name: fmt.Sprint("v", i), content: i%3 == 0, source: i < 3, value: fixed(fmt.Sprint("s", i)), unstored: i == 1,
					run: func(ctx context.Context, _ *schedule.Env) error {
						select {
						case <-time.After(time.Duration(rand.IntN(300)) * time.Microsecond):
							return nil
						case <-ctx.Done():
							return context.Cause(ctx)
						}
					},
				})
			}
			w := newWorld(t, specs...)
			var wg sync.WaitGroup
			for n := range jobs {
				wg.Add(1)
				go func() {
					defer wg.Done()
					rng := rand.New(rand.NewPCG(seed, uint64(n)))
					for range rounds {
						w.randomBuild(rng, names)
					}
				}()
			}
			wg.Wait()
		})
	}
}

func (w *world) randomBuild(rng *rand.Rand, names int) {
	c := &chart{}
	var made []graph.Edge
	for i := range names {
		var inputs []graph.Edge
		if i >= 3 {
			for range rng.IntN(3) {
				inputs = append(inputs, made[rng.IntN(len(made))])
			}
		}
		e := c.add(fmt.Sprint("v", i), inputs...)
		e.Vertex.IgnoreCache = rng.IntN(12) == 0
		made = append(made, e)
	}
	g := c.graph(made[names-1-rng.IntN(3)])
	if rng.IntN(5) == 0 {
		w.mu.Lock()
		for id := range w.stored {
			if rng.IntN(10) == 0 {
				delete(w.stored, id)
			}
		}
		w.mu.Unlock()
	}
	j := w.s.NewJob([]string{"s"}, feed.New(""), nil)
	defer j.Close()
	e, err := j.Load(context.Background(), g)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rng.IntN(3) == 0 {
		defer time.AfterFunc(time.Duration(rng.IntN(800))*time.Microsecond, cancel).Stop()
	}
	r, err := j.Result(ctx, e)
	if err != nil {
		require.ErrorIs(w.t, err, context.Canceled)
		return
	}
	got := r.(value).v
	r.Release()
	require.Equal(w.t, expected(w, g.Root), got)
}

// TestDeepChains builds chains that recursion would not survive, cold and cached.
func TestDeepChains(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v")})
	w.specs["step"] = &spec{name: "step", brief: true}
	c := &chart{}
	e := c.add("src")
	for range 5000 {
		e = c.add("step", e)
	}
	_, err := w.build(c.graph(e))
	require.NoError(t, err)
	require.Equal(t, 5000, w.ran("step"))
	_, err = w.build(c.graph(e))
	require.NoError(t, err)
	require.Equal(t, 5000, w.ran("step"))
}

func TestJobThatEndsEndsItsWants(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, &spec{name: "slow", run: func(ctx context.Context, _ *schedule.Env) error {
		close(started)
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	c := &chart{}
	j := w.s.NewJob(nil, feed.New(""), nil)
	e, err := j.Load(context.Background(), c.graph(c.add("slow")))
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		_, err := j.Result(context.Background(), e)
		done <- err
	}()
	<-started
	j.Close()
	require.ErrorContains(t, <-done, "build has ended")
	_, err = j.Result(context.Background(), e)
	require.Error(t, err)
	require.NotErrorIs(t, err, context.Canceled)
}

// TestLateJobIsToldWhatHappened joins a vertex that has told something already.
func TestLateJobIsToldWhatHappened(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, &spec{name: "loud", run: func(_ context.Context, env *schedule.Env) error {
		env.Scope.Log(event.Stdout, []byte("hello\n"))
		close(started)
		<-release
		return nil
	}})
	c := &chart{}
	g := c.graph(c.add("loud"))
	first := w.s.NewJob(nil, feed.New(""), nil)
	e, err := first.Load(context.Background(), g)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		r, err := first.Result(context.Background(), e)
		if err == nil {
			r.Release()
		}
		done <- err
	}()
	<-started
	told := feed.New("")
	late := w.s.NewJob(nil, told, nil)
	_, err = late.Load(context.Background(), g)
	require.NoError(t, err)
	close(release)
	require.NoError(t, <-done)
	first.Close()
	late.Close()
	require.Equal(t, "hello\n", text(t, told))
}

// text returns all output of a feed, which is closed.
func text(t *testing.T, told *feed.Feed) string {
	t.Helper()
	told.Close()
	var b strings.Builder
	require.NoError(t, told.Watch(t.Context(), func(status []byte) error {
		var m controlpb.StatusResponse
		err := proto.Unmarshal(status, &m)
		for _, l := range m.GetLogs() {
			b.Write(l.GetMsg())
		}
		return err
	}))
	return b.String()
}
