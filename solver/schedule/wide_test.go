package schedule_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/solver/graph"
)

// star is a graph of one vertex on so many others.
func star(size int) (*graph.Graph, []*spec) {
	c := &chart{}
	specs := []*spec{{name: "top"}}
	var all []graph.Edge
	for i := range size {
		name := fmt.Sprint("n", i)
		specs = append(specs, &spec{name: name, source: true, brief: true, value: fixed("v")})
		all = append(all, c.add(name))
	}
	return c.graph(c.add("top", all...)), specs
}

// A vertex with many inputs must not be looked at as a whole for each of them.
func TestTheTimeOfAVertexIsInLineWithItsInputs(t *testing.T) {
	took := func(size int) time.Duration {
		g, specs := star(size)
		least := time.Hour
		for range 2 {
			w := newWorld(t, specs...)
			runtime.GC()
			began := processorTime(t)
			_, err := w.build(g)
			require.NoError(t, err)
			least = min(least, processorTime(t)-began)
		}
		return least
	}
	small, large := took(300), took(3000)
	// In line would be 10, in line with the square 100.
	require.Less(t, float64(large)/float64(small), 30., "%v for 300 inputs, %v for 3000", small, large)
}

// processorTime is what this process has used so far: other programs take less of it than of the clock.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStar builds one vertex on many. Time per vertex has to stay the same.
func BenchmarkStar(b *testing.B) {
	for _, size := range []int{100, 1000, 10000} {
		g, specs := star(size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for b.Loop() {
				w := benchWorld(b, specs)
				_, err := w.build(g)
				require.NoError(b, err)
				w.s.Wait()
				require.NoError(b, w.keys.Close())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/vertex")
		})
	}
}
