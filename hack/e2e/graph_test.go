package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// column is a tree of depth files, each written by an op of its own. Salt makes it another one.
func column(salt string, number, depth int) llb.State {
	state := llb.Scratch()
	for i := range depth {
		state = state.File(llb.Mkfile(fmt.Sprintf("/file%d-%d", number, i), 0o644, []byte(salt)))
	}
	return state
}

// grid is a tree of width times depth files: columns side by side, and one op that puts their trees
// together.
func grid(salt string, width, depth int) llb.State {
	var action *llb.FileAction
	for number := range width {
		end := column(salt, number, depth)
		if action == nil {
			action = llb.Copy(end, "/", "/", llb.CopyDirContents())
		} else {
			action = action.Copy(end, "/", "/", llb.CopyDirContents())
		}
	}
	return llb.Scratch().File(action)
}

func TestSoakLargeGraphsAreBuiltAndCached(t *testing.T) {
	sizes := []struct{ width, depth int }{{10, 100}, {100, 10}, {30, 100}}
	if harness.Rounds(0, 1) == 1 {
		sizes = append(sizes, struct{ width, depth int }{100, 100}, struct{ width, depth int }{10, 1000})
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d wide and %d deep", size.width, size.depth), func(t *testing.T) {
			dir := tmpfs(t, "2g")
			d := harness.StartDaemon(t, harness.DaemonOptions{Dir: dir})
			definition := marshal(t, grid("salt", size.width, size.depth))
			ops := size.width*size.depth + 1

			out := filepath.Join(dir, "out")
			cold := vertexes(t, requireSolved(t, solve(t, d, definition, toLocal(out))))
			n, _ := countFiles(t, out)
			require.Equal(t, size.width*size.depth, n)
			executed := 0
			for _, v := range cold {
				require.Empty(t, v.Error)
				require.NotNil(t, v.Completed, v.Name)
				if !v.Cached {
					executed++
				}
			}
			require.GreaterOrEqual(t, executed, ops)

			warm := vertexes(t, requireSolved(t, solve(t, d, definition)))
			for _, v := range warm {
				require.True(t, v.Cached || v.Started == nil, v.Name)
			}
			d.RequireIdle(t)
		})
	}
}

// The kernel lays at most some 500 folders over each other.
func TestAChainLongerThanTheKernelCanStackIsBuilt(t *testing.T) {
	const depth = 2000
	dir := tmpfs(t, "2g")
	d := harness.StartDaemon(t, harness.DaemonOptions{Dir: dir})
	out := filepath.Join(dir, "out")
	requireSolved(t, solve(t, d, marshal(t, column("salt", 0, depth)), toLocal(out)))
	n, _ := countFiles(t, out)
	require.Equal(t, depth, n)
	d.Restart(t)
	longer := marshal(t, column("salt", 0, depth).File(llb.Mkdir("/more", 0o755)))
	requireSolved(t, solve(t, d, longer, toLocal(filepath.Join(dir, "more"))))
	n, _ = countFiles(t, filepath.Join(dir, "more"))
	require.Equal(t, depth, n)
	d.RequireIdle(t)
}
