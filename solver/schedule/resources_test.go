package schedule_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

func TestASharedVertexRunsWithTheMoreRelaxedLimits(t *testing.T) {
	var got *pb.LinuxResources
	w := newWorld(t, &spec{name: "a", run: func(_ context.Context, env *schedule.Env) error {
		got = env.Resources()
		return nil
	}})
	limited := func(r *pb.LinuxResources) *graph.Graph {
		c := &chart{}
		e := c.add("a")
		e.Vertex.Resources = r
		return c.graph(e)
	}
	job := func() *schedule.Job {
		j := w.s.NewJob([]string{"s"}, feed.New(""), nil)
		t.Cleanup(j.Close)
		return j
	}
	one, two := job(), job()
	_, err := one.Load(t.Context(), limited(&pb.LinuxResources{Memory: 1 << 20, CpuShares: 7}))
	require.NoError(t, err)
	_, err = w.buildIn(two, limited(&pb.LinuxResources{Memory: 2 << 20, CpuShares: 5}))
	require.NoError(t, err)
	require.EqualValues(t, 2<<20, got.Memory)
	require.EqualValues(t, 7, got.CpuShares)
}
