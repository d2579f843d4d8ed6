package schedule_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

func TestVerticesThatDoTheSameRunOnce(t *testing.T) {
	gate := make(chan struct{})
	entered := make(chan struct{}, 2)
	hold := func(context.Context, *schedule.Env) error {
		entered <- struct{}{}
		<-gate
		return nil
	}
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v")},
		&spec{name: "x", does: "same", run: hold}, &spec{name: "y", does: "same", run: hold})
	var wg sync.WaitGroup
	for _, name := range []string{"x", "y"} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := &chart{}
			v, err := w.build(c.graph(c.add(name, c.add("src"))))
			if err != nil || v != "same(v)" {
				t.Errorf("got %q, %v", v, err)
			}
		}()
	}
	<-entered
	close(gate)
	wg.Wait()
	require.Equal(t, 1, w.ran("x")+w.ran("y"))
}

func TestCancelledHolderIsTakenOver(t *testing.T) {
	first := make(chan struct{})
	var calls atomic.Int64
	w := newWorld(t, &spec{name: "slow", run: func(ctx context.Context, _ *schedule.Env) error {
		if calls.Add(1) == 1 {
			close(first)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}})
	c := &chart{}
	g := c.graph(c.add("slow"))
	ja := w.s.NewJob([]string{"a"}, feed.New(""), nil)
	e, err := ja.Load(context.Background(), g)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() {
		_, err := ja.Result(ctx, e)
		ended <- err
	}()
	<-first
	cause := errors.New("user pressed a key")
	cancel(cause)
	require.ErrorIs(t, <-ended, cause)
	jb := w.s.NewJob([]string{"b"}, feed.New(""), nil)
	v, err := w.buildIn(jb, g)
	require.NoError(t, err)
	require.Equal(t, "slow", v)
	ja.Close()
	jb.Close()
}

// What another vertex does that would yield the same is waited for; its Job may close meanwhile.
func TestAnEqualStepIsDoneByWhoWaitsForItIfTheOtherGoes(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, &spec{name: "x", does: "same", run: func(ctx context.Context, _ *schedule.Env) error {
		close(started)
		<-ctx.Done()
		return context.Cause(ctx)
	}}, &spec{name: "y", does: "same"})
	result := func(j *schedule.Job, name string) (schedule.Edge, <-chan error) {
		c := &chart{}
		return resultOf(t, j, c.graph(c.add(name)))
	}
	ja, jb := w.s.NewJob([]string{"a"}, feed.New(""), nil), w.s.NewJob([]string{"b"}, feed.New(""), nil)
	_, aDone := result(ja, "x")
	<-started
	e, bDone := result(jb, "y")
	for w.s.Waiting(e) < 1 {
		runtime.Gosched() // y has to wait for x before a goes
	}
	ja.Close()
	require.Error(t, <-aDone)
	select {
	case err := <-bDone:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Error("nobody does the step")
	}
	jb.Close()
	require.Equal(t, 1, w.ran("y"))
}

func TestOneCancelledJobLeavesTheOtherAlone(t *testing.T) {
	started := make(chan struct{})
	release := make(chan struct{})
	w := newWorld(t, &spec{name: "slow", run: func(ctx context.Context, _ *schedule.Env) error {
		close(started)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}})
	c := &chart{}
	g := c.graph(c.add("slow"))
	ja, jb := w.s.NewJob([]string{"a"}, feed.New(""), nil), w.s.NewJob([]string{"b"}, feed.New(""), nil)
	ea, err := ja.Load(context.Background(), g)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	aDone, bDone := make(chan error), make(chan error)
	go func() { _, err := ja.Result(ctx, ea); aDone <- err }()
	<-started
	eb, err := jb.Load(context.Background(), g)
	require.NoError(t, err)
	go func() {
		r, err := jb.Result(context.Background(), eb)
		if err == nil {
			r.Release()
		}
		bDone <- err
	}()
	for w.s.Waiting(eb) < 2 {
		runtime.Gosched() // the want of b has to be there before a goes
	}
	cancel()
	require.ErrorIs(t, <-aDone, context.Canceled)
	close(release)
	require.NoError(t, <-bDone)
	require.Equal(t, 1, w.ran("slow"))
	ja.Close()
	jb.Close()
}

// resultOf has a Job want the result of a graph in the background.
func resultOf(t *testing.T, j *schedule.Job, g *graph.Graph) (schedule.Edge, <-chan error) {
	t.Helper()
	e, err := j.Load(context.Background(), g)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		r, err := j.Result(context.Background(), e)
		if err == nil {
			r.Release()
		}
		done <- err
	}()
	return e, done
}
