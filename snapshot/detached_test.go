//go:build linux

package snapshot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// trees unpacks layers into snapshots one upon the other.
type trees struct {
	t     *testing.T
	store *snapshot.Store
}

// onTree unpacks a layer into the mounted tree.
func (s *trees) onTree(name, parent string, archive []byte) error {
	ctx := context.Background()
	require.NoError(s.t, s.store.Prepare(ctx, name+".active", parent))
	dir, release, err := snapshot.MountTemp(s.store.Mountable(ctx, name+".active", false, nil))
	require.NoError(s.t, err)
	_, err = layer.Apply(ctx, dir, bytes.NewReader(archive))
	require.NoError(s.t, release())
	if err != nil {
		return errors.Join(err, s.store.Remove(ctx, name+".active"))
	}
	return s.store.Commit(ctx, name, name+".active")
}

// alone unpacks a layer on its own.
func (s *trees) alone(name, parent string, archive []byte) error {
	ctx := context.Background()
	d := s.store.Detacher()
	dir, xattrs, err := d.PrepareDetached(ctx, name+".active")
	require.NoError(s.t, err)
	l, err := layer.ApplyDetached(ctx, dir, bytes.NewReader(archive), xattrs)
	if err == nil {
		below, release, merr := snapshot.MountTemp(s.store.Mountable(ctx, parent, true, nil))
		require.NoError(s.t, merr)
		err = l.Attach(below)
		require.NoError(s.t, release())
	}
	if err != nil {
		return errors.Join(err, s.store.Remove(ctx, name+".active"))
	}
	return d.CommitOn(ctx, name, name+".active", parent)
}

// look describes all that is in a tree.
func (s *trees) look(name string) (all []string) {
	dir, release, err := snapshot.MountTemp(s.store.Mountable(context.Background(), name, true, nil))
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, release()) }()
	require.NoError(s.t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprint(rel, " ", st.Mode(), " ", st.Sys().(*syscall.Stat_t).Uid)
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q %d", data, st.ModTime().Unix())
		case st.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			line += " -> " + to
		}
		all = append(all, line)
		return nil
	}))
	return all
}

type entry struct {
	name, link string
	kind       byte
	mode       int64
	uid        int
}

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, e := range entries {
		text := ""
		if e.kind == 0 {
			e.kind, text = tar.TypeReg, fmt.Sprint(e.name, i)
		}
		if e.mode == 0 {
			e.mode = 0o755
		}
		require.NoError(t, w.WriteHeader(&tar.Header{
			Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Uid: e.uid, Size: int64(len(text)),
			ModTime: time.Unix(int64(1000+i), 0),
		}))
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestALayerUnpackedOnItsOwnIsTheSameTree(t *testing.T) {
	store, err := snapshot.Open(t.Context(), t.TempDir(), snapshot.Overlay)
	require.NoError(t, err)
	defer store.Close()
	s := &trees{t, store}
	base := archiveOf(t,
		entry{name: "d", kind: tar.TypeDir, mode: 0o700, uid: 7}, entry{name: "d/f"}, entry{name: "d/g"},
		entry{name: "d/e", kind: tar.TypeDir, mode: 0o711, uid: 8}, entry{name: "d/e/h"},
		entry{name: "l", kind: tar.TypeSymlink, link: "d"}, entry{name: "x"}, entry{name: "empty", kind: tar.TypeDir})
	require.NoError(t, s.onTree("base", "", base))
	for name, tc := range map[string]struct {
		entries []entry
		needs   bool
	}{
		"a file beside others":                 {entries: []entry{{name: "y"}}},
		"a file in a folder no entry names":    {entries: []entry{{name: "d/e/y"}}},
		"a file in a folder that is new":       {entries: []entry{{name: "new/deep/y"}}},
		"a file in a folder by way of a link":  {entries: []entry{{name: "l/y"}}, needs: true},
		"a removed file":                       {entries: []entry{{name: "d/.wh.f"}}},
		"a removed folder":                     {entries: []entry{{name: ".wh.d"}}},
		"a removed file by way of a link":      {entries: []entry{{name: "l/.wh.f"}}, needs: true},
		"a file removed where no folder is":    {entries: []entry{{name: "no/where/.wh.f"}}},
		"a folder replaced":                    {entries: []entry{{name: ".wh.d"}, {name: "d", kind: tar.TypeDir}, {name: "d/n"}}},
		"a folder within one replaced":         {entries: []entry{{name: ".wh.d"}, {name: "d", kind: tar.TypeDir}, {name: "d/e/n"}}},
		"a folder removed and no entry for it": {entries: []entry{{name: ".wh.d"}, {name: "d/n"}}, needs: true},
		"an opaque folder":                     {entries: []entry{{name: "d", kind: tar.TypeDir}, {name: "d/.wh..wh..opq"}, {name: "d/n"}}},
		"an opaque folder no entry names":      {entries: []entry{{name: "d/n"}, {name: "d/.wh..wh..opq"}}},
		"an opaque folder that is nowhere":     {entries: []entry{{name: "no/.wh..wh..opq"}}},
		"an opaque root":                       {entries: []entry{{name: ".wh..wh..opq"}, {name: "n"}}, needs: true},
		"a folder where a link was":            {entries: []entry{{name: "l", kind: tar.TypeDir}, {name: "l/deep/n"}}},
		"a folder where a file was":            {entries: []entry{{name: "x", kind: tar.TypeDir}, {name: "x/deep/n"}}},
		"a file where a folder was":            {entries: []entry{{name: "d"}}},
		"a hard link within the layer":         {entries: []entry{{name: "a"}, {name: "b", kind: tar.TypeLink, link: "a"}}},
		"a hard link to a file below":          {entries: []entry{{name: "b", kind: tar.TypeLink, link: "d/f"}}, needs: true},
		"a folder named after its contents":    {entries: []entry{{name: "n/f"}, {name: "n", kind: tar.TypeDir, mode: 0o700, uid: 9}}},
		"a root":                               {entries: []entry{{name: ".", kind: tar.TypeDir, mode: 0o711, uid: 5}, {name: "n"}}},
		"a link that leads out":                {entries: []entry{{name: "d/o/n"}, {name: "d/.wh.o"}, {name: "d/o", kind: tar.TypeSymlink, link: "/etc"}}},
		"nothing":                              {},
	} {
		t.Run(name, func(t *testing.T) {
			a := archiveOf(t, tc.entries...)
			require.NoError(t, s.onTree(name+" 1", "base", a))
			err := s.alone(name+" 2", "base", a)
			if tc.needs {
				require.ErrorIs(t, err, layer.ErrNeedsParent)
				return
			}
			require.NoError(t, err)
			require.Equal(t, s.look(name+" 1"), s.look(name+" 2"))
		})
	}
}

// Layers drawn at random, as few of them make sense as in a fuzzer.
func TestLayersUnpackedOnTheirOwnAreTheSameTrees(t *testing.T) {
	store, err := snapshot.Open(t.Context(), t.TempDir(), snapshot.Overlay)
	require.NoError(t, err)
	defer store.Close()
	s := &trees{t, store}
	names := []string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/b/a"}
	alone := 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var parents [2]string
		for depth := range 3 {
			var entries []entry
			for range 1 + r.IntN(5) {
				e := entry{name: names[r.IntN(len(names))], mode: 0o700 | int64(r.IntN(0o100)), uid: r.IntN(4)}
				dir, base := filepath.Split(e.name)
				switch r.IntN(8) {
				case 0, 1:
					e.name = dir + ".wh." + base
				case 2:
					e.name += "/.wh..wh..opq"
				case 3, 4:
					e.kind = tar.TypeDir
				case 5:
					e.kind, e.link = tar.TypeSymlink, names[r.IntN(len(names))]
				}
				entries = append(entries, e)
			}
			a := archiveOf(t, entries...)
			id := fmt.Sprint(seed, "-", depth)
			if err := s.onTree(id+" 1", parents[0], a); err != nil {
				break
			}
			how := s.alone
			if depth == 0 {
				how = s.onTree
			}
			err := how(id+" 2", parents[1], a)
			if errors.Is(err, layer.ErrNeedsParent) {
				err = s.onTree(id+" 2", parents[1], a)
			} else if depth > 0 {
				alone++
			}
			require.NoError(t, err, "seed %d: %v", seed, entries)
			require.Equal(t, s.look(id+" 1"), s.look(id+" 2"), "seed %d depth %d: %+v", seed, depth, entries)
			parents = [2]string{id + " 1", id + " 2"}
		}
	}
	require.Greater(t, alone, 20)
}
