package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

func eachSnapshotter(t *testing.T, test func(t *testing.T, options harness.DaemonOptions)) {
	for _, name := range []string{"overlayfs", "native"} {
		t.Run(name, func(t *testing.T) {
			test(t, harness.DaemonOptions{Config: fmt.Sprintf("[worker.oci]\nsnapshotter = %q\n", name)})
		})
	}
}

func TestTreesAreMergedAndCompared(t *testing.T) {
	eachSnapshotter(t, func(t *testing.T, options harness.DaemonOptions) {
		r := harness.StartRegistry(t)
		r.PushBusybox(t)
		options.Registry = r
		d := harness.StartDaemon(t, options)
		base := llb.Image("busybox").File(llb.Mkdir("/data", 0o755).Mkfile("/data/old", 0o644, nil))
		ran := base.Run(llb.Shlex(`sh -c "mkdir /new && echo 1 >/new/f && rm -r /data && mkdir /data && echo n >/data/new"`)).Root()
		changed := llb.Diff(base, ran)
		other := llb.Scratch().File(llb.Mkdir("/data", 0o711).Mkfile("/data/own", 0o600, []byte("stays")).Mkfile("/data/old", 0o600, []byte("goes")))
		onOther := llb.Merge([]llb.State{other, changed})
		out := filepath.Join(t.TempDir(), "out")
		requireSolved(t, solve(t, d, marshal(t, onOther), toLocal(out)))
		require.Equal(t, "1\n", read(t, out, "new/f"))
		require.Equal(t, "stays", read(t, out, "data/own"))
		require.NoFileExists(t, filepath.Join(out, "data/old"), "what the step removed is removed")

		// A step on a merge, the difference to something else, and a step that waits for another.
		built := llb.Merge([]llb.State{base, onOther}).Run(llb.Shlex(`sh -c "cat /data/own /new/f >/both"`)).Root()
		strange := llb.Diff(other, llb.Scratch().File(llb.Mkfile("/data", 0o644, []byte("a file"))))
		result := llb.Merge([]llb.State{llb.Diff(base, built), strange}).
			Requires("after", []llb.State{base.Run(llb.Shlex("true")).Root()})
		reference := r.Host + "/merged:1"
		requireSolved(t, solve(t, d, marshal(t, result), toRegistry(reference), toLocal(filepath.Join(t.TempDir(), "x"))))
		requireValid(t, reference)
		pulled := filepath.Join(t.TempDir(), "pulled")
		d.MustBuildctl(t, "prune", "--all")
		requireSolved(t, solve(t, d, marshal(t, llb.Merge([]llb.State{other, llb.Image(reference)})), toLocal(pulled)))
		require.Equal(t, "stays1\n", read(t, pulled, "both"))
		require.Equal(t, "a file", read(t, pulled, "data"))
		d.RequireIdle(t)
	})
}

// layersOf returns the layers of an image in a registry.
func layersOf(t *testing.T, reference string) (all []v1.Hash) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	image, err := remote.Image(ref)
	require.NoError(t, err)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	for _, l := range manifest.Layers {
		all = append(all, l.Digest)
	}
	return all
}

func TestALinkedCopyIsReusedOnAnotherBase(t *testing.T) {
	r := harness.StartRegistry(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: r})
	build := func() (copies []vertex, layers []v1.Hash) {
		base, err := random.Image(64<<10, 2)
		require.NoError(t, err)
		reference := r.Push(t, "library/base:1", base)
		dir := tree(t, map[string]string{
			"Dockerfile": "FROM " + reference + "\nCOPY --link a /dir/\nCOPY --link b /dir/\n", "a": "a", "b": "b",
		})
		out := r.Host + "/app:1"
		result := d.Build(t, dir, toRegistry(out), "--progress=rawjson")
		require.Zero(t, result.Code, result.Stderr)
		requireValid(t, out)
		for _, v := range vertexes(t, result) {
			if strings.Contains(v.Name, "] COPY --link") {
				copies = append(copies, v)
			}
		}
		return copies, layersOf(t, out)
	}
	copies, first := build()
	require.Len(t, first, 4)
	require.Len(t, copies, 2)
	copies, second := build()
	require.NotEqual(t, first[:2], second[:2])
	require.Equal(t, first[2:], second[2:], "the layers of the copies are the same")
	require.Len(t, copies, 2)
	for _, v := range copies {
		require.True(t, v.Cached, v.Name)
	}
	// Nothing had to be read of either base.
	blobs, err := filepath.Glob(filepath.Join(d.Root, "*/cache/content/blobs/sha256/*"))
	require.NoError(t, err)
	require.NotEmpty(t, blobs)
	for _, b := range blobs {
		for _, l := range append(first[:2:2], second[:2]...) {
			require.NotEqual(t, l.Hex, filepath.Base(b), "a layer of a base was fetched")
		}
	}
	d.RequireIdle(t)
}

func TestALayerOfAMergeThatIsLostIsMadeAgain(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	lines := []string{"FROM busybox", "COPY --link a /dir/", "COPY --link --from=busybox /bin/busybox /dir/"}
	build := func(more ...string) {
		dir := dockerfile(t, append(lines, more...)...)
		write(t, filepath.Join(dir, "a"), "a")
		d.Build(t, dir)
	}
	build()
	for _, file := range []string{"dir/a", "dir/busybox"} {
		lost, err := filepath.Glob(filepath.Join(d.Root, "*/cache/snapshots/overlayfs/snapshots/*/fs", file))
		require.NoError(t, err)
		require.NotEmpty(t, lost)
		for _, l := range lost {
			require.NoError(t, os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(l)))))
		}
	}
	build("RUN test -f /dir/a && test -f /dir/busybox")
	d.RequireIdle(t)
}

// layered is a tree of so many merges, each on the one before, with a step now and then.
func layered(salt string, depth int) llb.State {
	state := llb.Image("busybox")
	for i := range depth {
		file := llb.Scratch().File(llb.Mkfile(fmt.Sprintf("/file%d", i), 0o644, []byte(salt)))
		if state = llb.Merge([]llb.State{state, file}); i%50 == 25 {
			state = state.Run(llb.Shlexf("touch /step%d", i)).Root()
		}
	}
	return state
}

// gathered is a tree of so many others, laid over each other.
func gathered(salt string, width int) llb.State {
	var all []llb.State
	for i := range width {
		all = append(all, llb.Scratch().File(llb.Mkfile(fmt.Sprintf("/file%d", i), 0o644, []byte(salt))))
	}
	return llb.Merge(all)
}

func TestMergesOfAnyWidthAndDepthAreBuilt(t *testing.T) {
	deep, wide := harness.Rounds(120, 300), harness.Rounds(200, 1000)
	dir := tmpfs(t, "2g")
	d := start(t, harness.DaemonOptions{Dir: dir})
	for what, state := range map[string]llb.State{"deep": layered("salt", deep), "wide": gathered("salt", wide)} {
		files := filepath.Join(dir, what)
		requireSolved(t, solve(t, d, marshal(t, state), toLocal(files)))
		found, err := filepath.Glob(filepath.Join(files, "file*"))
		require.NoError(t, err)
		require.Len(t, found, map[string]int{"deep": deep, "wide": wide}[what])
		// And a step on it.
		on := llb.Image("busybox").Run(llb.Shlex("ls /tree"), llb.AddMount("/tree", state, llb.Readonly())).Root()
		requireSolved(t, solve(t, d, marshal(t, on)))
	}
	d.RequireIdle(t)
}

// Fifty trees of a hundred files laid over each other, against cp -al of all of them.
func BenchmarkMergeOfFifty(b *testing.B) {
	const trees, files = 50, 100
	dir := tmpfs(b, "2g")
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir})
	round := 0
	merged := llb.Scratch()
	var plain []string
	for i := range trees {
		from := filepath.Join(dir, "plain", fmt.Sprint(i))
		action := llb.Mkdir(fmt.Sprintf("/d%d", i), 0o755)
		for j := range files {
			p := fmt.Sprintf("/d%d/f%d", i, j)
			action = action.Mkfile(p, 0o644, []byte(p))
			write(b, filepath.Join(from, p), p)
		}
		plain = append(plain, from+"/.")
		merged = llb.Merge([]llb.State{merged, llb.Scratch().File(action)})
	}
	requireSolved(b, solve(b, d, marshal(b, merged)))
	pair(b, func() time.Duration {
		round++
		// A file of its own makes it another merge, which has to be seen by a file operation.
		state := llb.Merge([]llb.State{llb.Scratch().File(llb.Mkfile("/own", 0o644, fmt.Append(nil, round))), merged})
		bare := llb.Scratch().File(llb.Mkfile("/own", 0o644, fmt.Append(nil, "bare", round)))
		seen := func(s llb.State) llb.State { return llb.Scratch().File(llb.Copy(s, "/own", "/")) }
		with := timed(func() { requireSolved(b, solve(b, d, marshal(b, seen(state)))) })
		without := timed(func() { requireSolved(b, solve(b, d, marshal(b, seen(bare)))) })
		return with - without
	}, func() time.Duration {
		to := filepath.Join(dir, "to", fmt.Sprint(round))
		require.NoError(b, os.MkdirAll(to, 0o755))
		return timed(func() { command(b, "cp", append([]string{"-al"}, append(plain, to)...)...) })
	})
}

// What a graph costs that is half as large, once more: 2 is linear.
func BenchmarkMergeGraphs(b *testing.B) {
	for name, graph := range map[string]struct {
		small, large int
		of           func(string, int) llb.State
	}{
		"wide": {200, 1000, gathered},
		"deep": {100, 300, layered},
	} {
		for _, warm := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s, cached %t", name, warm), func(b *testing.B) {
				dir := tmpfs(b, "2g")
				d := start(b, harness.DaemonOptions{Dir: dir})
				round := 0
				build := func(size int) time.Duration {
					salt := fmt.Sprint(size)
					if !warm {
						round++
						salt = fmt.Sprint(round)
					}
					def := marshal(b, graph.of(salt, size))
					return timed(func() { requireSolved(b, solve(b, d, def, toLocal(filepath.Join(dir, "out")))) })
				}
				build(graph.small)
				build(graph.large)
				pair(b, func() time.Duration { return build(graph.large) }, func() time.Duration { return build(graph.small) })
				b.ReportMetric(float64(graph.large)/float64(graph.small), "sizes")
			})
		}
	}
}
