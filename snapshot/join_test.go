//go:build linux

package snapshot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// foreign draws a layer that another program may have made: it removes what is not there, and empties
// folders.
func foreign(t *testing.T, r *rand.Rand) []byte {
	var entries []entry
	named := map[string]bool{}
	names := []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/b/a"}
	for range 1 + r.IntN(6) {
		name := names[r.IntN(len(names))]
		dirs := []string{}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs = append([]string{dir}, dirs...)
		}
		for _, dir := range dirs {
			if !named[dir] {
				named[dir] = true
				entries = append(entries, entry{name: dir, kind: tar.TypeDir, mode: 0o700 | int64(r.IntN(0o100)), uid: r.IntN(4)})
			}
		}
		if named[name] {
			continue
		}
		dir, base := path.Split(name)
		switch r.IntN(5) {
		case 0, 1:
			entries = append(entries, entry{name: dir + ".wh." + base})
			continue // it may come again
		case 2:
			entries = append(entries, entry{name: name, kind: tar.TypeDir}, entry{name: name + "/.wh..wh..opq"})
		case 3:
			entries = append(entries, entry{name: name, kind: tar.TypeDir, mode: 0o711})
		default:
			entries = append(entries, entry{name: name, mode: 0o600 | int64(r.IntN(0o100))})
		}
		named[name] = true
	}
	return archiveOf(t, entries...)
}

// unpack makes a snapshot of a layer as package cache does, and returns what it changes.
func (s *trees) unpack(name, parent string, archive []byte) (snapshot.Layer, error) {
	ctx := context.Background()
	l := snapshot.Layer{Snapshot: name}
	if d := s.store.Detacher(); d != nil && parent != "" {
		dir, xattrs, err := d.PrepareDetached(ctx, name+".active")
		require.NoError(s.t, err)
		alone, err := layer.ApplyDetached(ctx, dir, bytes.NewReader(archive), xattrs)
		if err == nil {
			below, release, err := snapshot.MountTemp(s.store.Mountable(ctx, parent, true, nil))
			require.NoError(s.t, err)
			require.NoError(s.t, alone.Attach(below))
			require.NoError(s.t, release())
			l.Removed = alone.Removed
			return l, d.CommitOn(ctx, name, name+".active", parent)
		}
		require.NoError(s.t, s.store.Remove(ctx, name+".active"))
		if !errors.Is(err, layer.ErrNeedsParent) {
			return l, err
		}
	}
	require.NoError(s.t, s.store.Prepare(ctx, name+".active", parent))
	dir, release, err := snapshot.MountTemp(s.store.Mountable(ctx, name+".active", false, nil))
	require.NoError(s.t, err)
	applied, err := layer.Apply(ctx, dir, bytes.NewReader(archive))
	require.NoError(s.t, release())
	if err != nil {
		return l, errors.Join(err, s.store.Remove(ctx, name+".active"))
	}
	l.Removed = applied.Removed
	return l, s.store.Commit(ctx, name, name+".active")
}

// Layers of images, whatever they remove, are joined to the tree that they unpack to one after the
// other.
func TestJoinedLayersOfImagesAreWhatTheyUnpackTo(t *testing.T) {
	for _, snapshotter := range []string{snapshot.Overlay, snapshot.Native} {
		t.Run(snapshotter, func(t *testing.T) {
			root := t.TempDir()
			require.NoError(t, unix.Mount("tmpfs", root, "tmpfs", 0, ""), "snapshots are mounted, which needs root")
			t.Cleanup(func() { require.NoError(t, unix.Unmount(root, unix.MNT_DETACH)) })
			store, err := snapshot.Open(t.Context(), root, snapshotter)
			require.NoError(t, err)
			defer store.Close()
			s := &trees{t, store}
			joined := 0
			for seed := range uint64(40) {
				r := rand.New(rand.NewPCG(seed, 5))
				plain, base := "", ""
				var layers []snapshot.Layer
				ok := true
				for chain := range 3 {
					parent := ""
					for depth := range 1 + r.IntN(3) {
						name := fmt.Sprint(seed, "-", chain, "-", depth)
						archive := foreign(t, r)
						l, err := s.unpack(name, parent, archive)
						if ok = ok && err == nil; !ok {
							break
						}
						parent = name
						if chain == 0 {
							base = name
						} else {
							layers = append(layers, l)
						}
						require.NoError(t, s.onTree(name+"-plain", plain, archive))
						plain = name + "-plain"
					}
				}
				if !ok {
					continue // an archive that nobody can unpack
				}
				joined++
				all := fmt.Sprint(seed, "-all")
				require.NoError(t, store.Join(t.Context(), all+".active", base, layers))
				require.NoError(t, store.Commit(t.Context(), all, all+".active"))
				require.Equal(t, s.look(plain), s.look(all), "seed %d: %v", seed, layers)
			}
			require.Greater(t, joined, 20)
		})
	}
}
