package cache_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

func TestLayersAreFetchedFromTheLowestAndUnpackedWhenTheyAreHere(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("f%02d", i))
	}
	ref := e.image(r, names...)
	var mu sync.Mutex
	var order []digest.Digest
	extracted := make(chan string, len(names))
	r.scope = event.NewScope(event.SinkFunc(func(b event.Batch) {
		for _, s := range b.Statuses {
			if s.Completed != nil && len(s.ID) > 80 {
				extracted <- s.ID
			}
		}
	}), "sha256:v")
	lowest := make(chan struct{})
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, r.access())
	require.NoError(t, err)
	r.open = func(_ context.Context, desc ocispec.Descriptor, off int64) (io.ReadCloser, error) {
		mu.Lock()
		order = append(order, desc.Digest)
		mu.Unlock()
		if desc.Digest == layers[0].Descriptor.Digest {
			<-lowest
		}
		return io.NopCloser(bytes.NewReader(r.blobs[desc.Digest][off:])), nil
	}
	done := make(chan error, 1)
	go func() { done <- ref.Realise(e.ctx, r.access()) }()
	for range len(names) - 1 {
		id := <-extracted
		require.NotContains(t, id, layers[0].Descriptor.Digest.String())
	}
	close(lowest)
	require.NoError(t, <-done)
	require.Len(t, e.files(ref, cache.Access{}), len(names))
	// Some transfers go side by side: each may be that much before its turn.
	const beside = 6
	for i, d := range order {
		at := 0
		for layers[at].Descriptor.Digest != d {
			at++
		}
		require.LessOrEqual(t, at, i+beside, "%v", order)
	}
	e.release(ref)
}

func TestAChainOf600LayersIsMadeAndRead(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	var names []string
	for i := range 600 {
		names = append(names, fmt.Sprintf("d%d/f%d", i%7, i))
	}
	start := time.Now()
	ref := e.image(r, names...)
	require.NoError(t, ref.Realise(e.ctx, r.access()))
	t.Log("realised in", time.Since(start))
	require.Len(t, e.files(ref, cache.Access{}), 600)
	e.release(ref)
}

// layerOf is a layer of entries, which it adds to the remote and to a tree.
func (e *env) layerOf(r *remote, parent *cache.Ref, entries ...tar.Header) *cache.Ref {
	e.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		require.NoError(e.t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := io.WriteString(w, h.Name)
			require.NoError(e.t, err)
		}
	}
	require.NoError(e.t, w.Close())
	ref, err := e.AddBlob(e.ctx, parent, r.add(gzipped(e.t, b.Bytes())), digest.FromBytes(b.Bytes()), cache.Description{})
	require.NoError(e.t, err)
	return ref
}

func TestALayerThatNeedsWhatIsBelowWaitsForIt(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		base := e.layerOf(r, nil,
			tar.Header{Name: "usr", Typeflag: tar.TypeDir, Mode: 0o711},
			tar.Header{Name: "usr/f"},
			tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr"})
		linked := e.layerOf(r, base, tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "usr/f"})
		through := e.layerOf(r, linked, tar.Header{Name: "lib/g"})
		top := e.layerOf(r, through, tar.Header{Name: "usr/h"}, tar.Header{Name: "usr/.wh.f"})
		require.Equal(t, map[string]string{"hard": "usr/f", "usr/g": "lib/g", "usr/h": "usr/h"}, e.files(top, r.access()))
		m, err := top.Mount(e.ctx, true, cache.Access{})
		require.NoError(t, err)
		e.mounted(m, func(dir string) {
			st, err := os.Lstat(filepath.Join(dir, "lib"))
			require.NoError(t, err)
			require.Equal(t, os.ModeSymlink, st.Mode().Type())
			st, err = os.Lstat(filepath.Join(dir, "usr"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o711), st.Mode().Perm())
		})
		e.release(base, linked, through, top)
	})
}

func TestHostileLayersStayInTheirTree(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("safe"), 0o600))
	each(t, func(t *testing.T, e *env) {
		for name, entries := range map[string][]tar.Header{
			"names that lead out":  {{Name: "../../../../" + outside}, {Name: "/" + outside}},
			"a link that does":     {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "l" + outside}},
			"links through links":  {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../../.."}, {Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a/.."}, {Name: "b" + outside}},
			"a removal outside":    {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "l" + filepath.Dir(outside) + "/.wh.outside"}},
			"a hard link outside":  {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../.." + outside}},
			"a mark as a device":   {{Name: "d", Typeflag: tar.TypeChar}},
			"a folder with a mark": {{Name: "d", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}}},
		} {
			for _, alone := range []bool{false, true} {
				r := newRemote()
				var base *cache.Ref
				if alone {
					base = e.layerOf(r, nil, tar.Header{Name: "d", Typeflag: tar.TypeDir}, tar.Header{Name: "d/f"})
				}
				ref := e.layerOf(r, base, entries...)
				err := ref.Realise(e.ctx, r.access())
				if name == "a mark as a device" || name == "a hard link outside" {
					require.Error(t, err, name)
				} else {
					require.NoError(t, err, name)
					if alone && name == "a folder with a mark" {
						require.Contains(t, e.files(ref, cache.Access{}), "d/f")
					}
				}
				e.release(ref, base)
				data, err := os.ReadFile(outside)
				require.NoError(t, err, name)
				require.Equal(t, "safe", string(data), name)
			}
		}
	})
}

func TestLayersWithNothingInThem(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		base := e.layerOf(r, nil, tar.Header{Name: "f"})
		none := e.layerOf(r, base)
		empty, err := e.AddBlob(e.ctx, none, r.add(nil), digest.FromBytes(nil), cache.Description{})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"f": "f"}, e.files(empty, r.access()))
		e.release(base, none, empty)
	})
}

// A layer of a few MiB can unpack to any number of them. There is no limit but the disk; who does
// not want to wait for that can end it at any time, and nothing is left.
func TestABombCanBeEnded(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		var head bytes.Buffer
		w := tar.NewWriter(&head)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 1 << 40}))
		bomb := append(gzipped(t, head.Bytes()), bytes.Repeat(gzipped(t, make([]byte, 64<<20)), 400)...)
		r := newRemote()
		began := make(chan struct{}, 100)
		r.scope = event.NewScope(event.SinkFunc(func(b event.Batch) {
			for _, s := range b.Statuses {
				if len(s.ID) > 80 {
					began <- struct{}{}
				}
			}
		}), "sha256:v")
		for _, base := range []*cache.Ref{nil, e.layerOf(r, nil, tar.Header{Name: "f"})} {
			if base != nil {
				require.NoError(t, base.Realise(e.ctx, cache.Access{Blobs: finder{r}}))
				<-began
				<-began
			}
			ref, err := e.AddBlob(e.ctx, base, r.add(bomb), digest.FromString("unknown"), cache.Description{})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(e.ctx)
			done := make(chan error, 1)
			go func() { done <- ref.Realise(ctx, r.access()) }()
			<-began
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			e.release(ref, base)
			require.NoError(t, e.Drop(e.ctx, ref.ID()))
			for len(began) > 0 {
				<-began
			}
		}
		// Who has given up does not wait for what is being removed.
		require.Eventually(t, func() bool { return e.Check(e.ctx) == nil }, 30*time.Second, 20*time.Millisecond)
	})
}
