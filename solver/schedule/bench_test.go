package schedule_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/key"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// BenchmarkGraph builds graphs of growing size, wide layers on top of each other, cold and from
// the store. Time per vertex has to stay the same.
func BenchmarkGraph(b *testing.B) {
	for _, size := range []int{1000, 3000, 10000, 30000} {
		g, specs := ladder(size)
		b.Run(fmt.Sprintf("cold-%d", size), func(b *testing.B) {
			for b.Loop() {
				w := benchWorld(b, specs)
				_, err := w.build(g)
				require.NoError(b, err)
				w.s.Wait()
				require.NoError(b, w.keys.Close())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/vertex")
		})
		b.Run(fmt.Sprintf("cached-%d", size), func(b *testing.B) {
			w := benchWorld(b, specs)
			_, err := w.build(g)
			require.NoError(b, err)
			for b.Loop() {
				_, err := w.build(g)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/vertex")
		})
	}
}

// ladder is a graph of layers of 100 vertices, each on two of the layer below.
func ladder(size int) (*graph.Graph, []*spec) {
	c := &chart{}
	specs := []*spec{{name: "src", source: true, value: fixed("v")}, {name: "top"}}
	layer := []graph.Edge{c.add("src")}
	for len(c.order) < size {
		var next []graph.Edge
		for i := range 100 {
			name := fmt.Sprint("n", len(c.order))
			specs = append(specs, &spec{name: name, brief: true})
			next = append(next, c.add(name, layer[i%len(layer)], layer[(i+1)%len(layer)]))
		}
		layer = next
	}
	return c.graph(c.add("top", layer...)), specs
}

func benchWorld(b *testing.B, specs []*spec) *world {
	b.Helper()
	w := &world{specs: map[string]*spec{}, stored: map[string]string{}, lost: map[string]bool{}, runs: map[string]int{}}
	for _, sp := range specs {
		w.specs[sp.name] = sp
	}
	keys, err := key.Open(filepath.Join(b.TempDir(), "keys.db"))
	require.NoError(b, err)
	w.keys = keys
	w.s = schedule.New(keys, w.op, w.load)
	return w
}
