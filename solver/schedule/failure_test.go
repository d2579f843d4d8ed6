package schedule_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// holding is an error with a result of the world.
type holding struct{ value }

func (holding) Error() string { return "failed" }

func TestWhatAFailureHoldsGoesWithTheLastJob(t *testing.T) {
	var w *world
	w = newWorld(t, &spec{name: "bad", run: func(context.Context, *schedule.Env) error { return holding{w.handle("left", "")} }},
		&spec{name: "top"})
	c := &chart{}
	g := c.graph(c.add("top", c.add("bad")))
	ja, jb := w.s.NewJob([]string{"a"}, feed.New(""), nil), w.s.NewJob([]string{"b"}, feed.New(""), nil)
	for _, j := range []*schedule.Job{ja, jb} {
		_, err := w.buildIn(j, g)
		var h schedule.HoldingError
		require.ErrorAs(t, err, &h)
	}
	require.Equal(t, 1, w.ran("bad"))
	ja.Close()
	require.EqualValues(t, 1, w.live.Load(), "the other job knows of it")
	jb.Close()
	require.Zero(t, w.live.Load())
}

// The world sees that what nobody is told of is released.
func TestWhatAFailureHoldsThatNobodyWaitsForIsReleased(t *testing.T) {
	runs := make(chan struct{})
	var w *world
	w = newWorld(t, &spec{name: "slow", run: func(ctx context.Context, _ *schedule.Env) error {
		close(runs)
		<-ctx.Done()
		return holding{w.handle("left", "")}
	}})
	c := &chart{}
	j := w.s.NewJob([]string{"a"}, feed.New(""), nil)
	e, err := j.Load(context.Background(), c.graph(c.add("slow")))
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error)
	go func() {
		_, err := j.Result(ctx, e)
		ended <- err
	}()
	<-runs
	cause := errors.New("enough")
	cancel(cause)
	require.ErrorIs(t, <-ended, cause)
	j.Close()
}
