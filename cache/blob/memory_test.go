//go:build !race

package blob

import (
	"archive/tar"
	"io"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector takes memory of its own, so this is no test for it.
//
// The memory that a layer takes has a bound that neither its size nor the number of cores moves.
func TestMemoryIsBounded(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what is counted is in use, mostly
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(32))
	piece := text(1 << 20)
	one, six := 1, 6
	for form, level := range map[Compression]*int{Uncompressed: nil, Gzip: &one, EStargz: &one, Zstd: &six} {
		runtime.GC()
		var base, now runtime.MemStats
		runtime.ReadMemStats(&base)
		const pieces = 112 // more than is ever in work
		w, err := NewCompressor(io.Discard, form, level)
		require.NoError(t, err)
		archive := tar.NewWriter(w)
		require.NoError(t, archive.WriteHeader(&tar.Header{Name: "f", Size: pieces << 20}))
		most := uint64(0)
		for range pieces {
			_, err := archive.Write(piece)
			require.NoError(t, err)
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		require.NoError(t, archive.Close())
		require.NoError(t, w.Close())
		require.Less(t, (most-min(most, base.HeapAlloc))>>20, uint64(200), "MiB of %s", form)
		t.Logf("%s: %d MiB", form, (most-base.HeapAlloc)>>20)
	}
}
