//go:build linux

package snapshot_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/snapshot"
)

// What one step asks of the snapshotter, on the disk that has the folder of temporary files, for one
// build and for many at once.
func BenchmarkCommitPrepare(b *testing.B) {
	for _, builds := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("builds=%d", builds), func(b *testing.B) {
			store, err := snapshot.Open(b.Context(), b.TempDir(), snapshot.Overlay)
			require.NoError(b, err)
			defer store.Close()
			for build := range builds {
				require.NoError(b, store.Prepare(b.Context(), fmt.Sprintf("b%d-0.active", build), ""))
			}
			b.ResetTimer()
			var all sync.WaitGroup
			var steps atomic.Int64
			for build := range builds {
				all.Go(func() {
					for i := 0; steps.Add(1) <= int64(b.N); i++ {
						name, next := fmt.Sprintf("b%d-%d", build, i), fmt.Sprintf("b%d-%d.active", build, i+1)
						if _, err := store.CommitPrepare(b.Context(), name, name+".active", next); !assert.NoError(b, err) {
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
		})
	}
}
