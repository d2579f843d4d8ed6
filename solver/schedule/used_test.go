package schedule_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

func TestWhatWasUsedIsToldWhetherItRanOrNot(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v1")}, &spec{name: "a"}, &spec{name: "b"},
		&spec{name: "never", source: true, value: fixed("x")})
	c := &chart{}
	src := c.add("src")
	g := c.graph(c.add("b", c.add("a", src), src))
	other := &chart{}
	unused := other.graph(other.add("never"))
	var results [2][]string
	for round := range 2 {
		j := w.s.NewJob([]string{"s"}, feed.New(""), nil)
		_, err := w.buildIn(j, g)
		require.NoError(t, err)
		e, err := j.Load(context.Background(), g)
		require.NoError(t, err)
		lazy, err := j.Load(context.Background(), unused)
		require.NoError(t, err)
		used := j.Used([]schedule.Edge{e, e, lazy, {}})
		var names []string
		for _, u := range used {
			names = append(names, u.Vertex.Name)
			require.Len(t, u.Results, 1)
			require.Len(t, u.Results[0], 1, u.Vertex.Name)
			results[round] = append(results[round], u.Results[0]...)
		}
		require.Equal(t, []string{"src", "a", "b"}, names)
		require.Equal(t, "v1", used[0].Pin)
		j.Close()
	}
	require.Equal(t, results[0], results[1], "the second build loads nothing but b")
}
