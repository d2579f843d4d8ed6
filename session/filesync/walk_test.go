//go:build linux

package filesync_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil/types"
)

// wide makes a tree of directories with more and fewer entries than are described at once.
func wide(t *testing.T, dir string) {
	t.Helper()
	for i, n := range []int{0, 1, 63, 64, 65, 500} {
		for j := range n {
			p := filepath.Join(dir, fmt.Sprintf("d%d", i), fmt.Sprintf("e%d", j%7), fmt.Sprintf("f%03d", j))
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("d%d", i), fmt.Sprintf("f%03d", j)), nil, 0o644))
		}
	}
}

func TestAWalkIsInOrderAndLeavesOutWhatIsSkipped(t *testing.T) {
	dir := tmpfs(t)
	wide(t, dir)
	l := localFS(t, dir)
	for name, skip := range map[string]func(rel string, dir bool) error{
		"nothing skipped": func(string, bool) error { return nil },
		"directories skipped": func(rel string, dir bool) error {
			if dir && filepath.Base(rel) == "e3" {
				return fs.SkipDir
			}
			return nil
		},
		"the rest of directories skipped": func(rel string, _ bool) error {
			if filepath.Base(rel) == "f031" {
				return fs.SkipDir
			}
			return nil
		},
		"the rest of all skipped": func(rel string, _ bool) error {
			if rel == filepath.Join("d4", "f011") {
				return fs.SkipAll
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want, got []string
			require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err != nil || p == dir {
					return err
				}
				rel, err := filepath.Rel(dir, p)
				if err != nil {
					return err
				}
				want = append(want, rel)
				return skip(rel, d.IsDir())
			}))
			require.NoError(t, l.Walk(t.Context(), "", func(rel string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				require.Equal(t, rel, info.Sys().(*types.Stat).Path)
				got = append(got, rel)
				return skip(rel, d.IsDir())
			}))
			require.Equal(t, want, got)
		})
	}
}

func TestAWalkEndsWithItsContext(t *testing.T) {
	dir := tmpfs(t)
	wide(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := localFS(t, dir).Walk(ctx, "", func(string, fs.DirEntry, error) error {
		if n++; n == 100 {
			cancel()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, n, 200)
}

func TestAWalkStartsAtATarget(t *testing.T) {
	dir := tmpfs(t)
	wide(t, dir)
	l := localFS(t, dir)
	for target, want := range map[string]int{"d1": 4, "d1/f000": 1, "none": 1, "d1/f000/below": 1} {
		n := 0
		require.NoError(t, l.Walk(t.Context(), target, func(_ string, _ fs.DirEntry, err error) error {
			n++
			return err
		}))
		require.Equal(t, want, n, target)
	}
}

func BenchmarkWalk20k(b *testing.B) {
	dir := tmpfs(b)
	many(b, dir, manyFiles)
	l := localFS(b, dir)
	for b.Loop() {
		require.NoError(b, l.Walk(b.Context(), "", func(string, fs.DirEntry, error) error { return nil }))
	}
}
