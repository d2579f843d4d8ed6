//go:build !race

package blob

import (
	"archive/tar"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// The race detector takes memory of its own, so this is no test for it.
//
// The memory that layers take, with what the garbage collector leaves, has a bound that neither their
// size, form and number nor the number of cores moves.
func TestMemoryIsBounded(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(32))
	one, eight, nineteen := 1, 8, 19
	type want struct {
		form  Compression
		level *int
	}
	for name, wants := range map[string][]want{
		"one uncompressed": {{Uncompressed, nil}},
		"one gzip":         {{Gzip, &one}},
		"one estargz":      {{EStargz, &one}},
		"one zstd":         {{Zstd, &one}},
		"one of each":      {{Gzip, &one}, {Gzip, nil}, {EStargz, nil}, {Zstd, &one}, {Zstd, nil}, {Zstd, &eight}},
		"one hard zstd":    {{Zstd, &nineteen}},
		"two hard zstd":    {{Zstd, &nineteen}, {Zstd, &nineteen}, {Gzip, nil}},
	} {
		var cs Compressors
		runtime.GC()
		var base runtime.MemStats
		runtime.ReadMemStats(&base)
		var watch heapWatch
		var g errgroup.Group
		for _, want := range wants {
			g.Go(func() error {
				w, err := cs.New(io.Discard, want.form, want.level)
				if err != nil {
					return err
				}
				size := int64(96 / len(wants)) // more than is ever in work
				if want.level == &nineteen {
					size = 12 // and takes long
				}
				return writeArchive(w, size<<20, &watch)
			})
		}
		require.NoError(t, g.Wait(), name)
		most := int64(watch.most.Load()) - int64(base.HeapInuse)
		t.Logf("%s: %d MiB", name, most>>20)
		require.Less(t, most, int64(200<<20), name)
		require.Zero(t, cs.stock.taken)
	}
}

// writeArchive writes a file of text.
func writeArchive(w io.WriteCloser, size int64, watch *heapWatch) error {
	piece := text(1 << 20)
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Name: "f", Size: size}); err != nil {
		return err
	}
	for range size / int64(len(piece)) {
		if _, err := archive.Write(piece); err != nil {
			return err
		}
		watch.look()
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return w.Close()
}

// heapWatch notes how large the heap gets.
type heapWatch struct {
	mu   sync.Mutex
	most atomic.Uint64
}

func (h *heapWatch) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	h.most.Store(max(h.most.Load(), now.HeapInuse))
}
