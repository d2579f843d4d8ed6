package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// Each benchmark does a piece of work with the programs and with the plain tools that do the same,
// by turns and on one fresh file system in memory, and reports the ratio of the median times. Times
// alone say more about the machine than about the programs.

// turns is how often each side of a pair works at least.
const turns = 5

// pair reports how long ours takes compared to plain. Both return the time of what counts.
func pair(b *testing.B, ours, plain func() time.Duration) {
	b.Helper()
	var o, p []time.Duration
	for b.Loop() {
		for range turns {
			o, p = append(o, ours()), append(p, plain())
		}
	}
	b.ReportMetric(0, "ns/op") // of both together, which is nothing anybody wants to know
	b.ReportMetric(milliseconds(median(o)), "ms/ours")
	b.ReportMetric(milliseconds(median(p)), "ms/plain")
	b.ReportMetric(float64(median(o))/float64(median(p)), "ratio")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// timed returns how long work takes.
func timed(work func()) time.Duration {
	began := time.Now()
	work()
	return time.Since(began)
}

// shell returns how long a line of shell takes, with its words as $1 and so on.
func shell(b *testing.B, line string, words ...string) time.Duration {
	b.Helper()
	return timed(func() { command(b, "sh", append([]string{"-ec", line, "sh"}, words...)...) })
}

// prune makes the daemon forget everything.
func prune(b *testing.B, d *harness.Daemon) {
	b.Helper()
	d.MustBuildctl(b, "prune", "--all")
}

// The marginal cost of a step, against the bare runtime with the specification that the daemon
// made for the step.
func BenchmarkRunStep(b *testing.B) {
	const steps = 20
	dir := tmpfs(b, "1g")
	bundle := bareBundle(b, dir)
	d := start(b, harness.DaemonOptions{Dir: dir})
	d.Build(b, dockerfile(b, "FROM busybox", "RUN true"))
	round := 0
	build := func(n int) time.Duration {
		lines := []string{"FROM busybox"}
		for i := range n {
			lines = append(lines, fmt.Sprintf("RUN [\"/bin/true\", \"%d-%d\"]", round, i))
		}
		context := dockerfile(b, lines...)
		return timed(func() { require.Len(b, ran(d.Build(b, context)), n) })
	}
	pair(b, func() time.Duration {
		round++
		one := build(1)
		round++
		return (build(1+steps) - one) / steps
	}, func() time.Duration {
		return timed(func() {
			for range steps {
				command(b, "runc", "run", "--keep", "--bundle="+bundle, "e2e-bench")
				command(b, "runc", "delete", "e2e-bench")
			}
		}) / steps
	})
}

// A container of a frontend with one process in it, from the request to the release, against the
// bare runtime with the specification that the daemon made.
func BenchmarkGatewayContainer(b *testing.B) {
	const containers = 20
	dir := tmpfs(b, "1g")
	bundle := bareBundle(b, dir)
	d := start(b, harness.DaemonOptions{Dir: dir})
	client := connectTo(b, d)
	pair(b, func() (took time.Duration) {
		drive(b, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			req := inBusybox(ctx, b, c)
			require.NoError(b, req.Mounts[0].Ref.Evaluate(ctx))
			took = timed(func() {
				for range containers {
					ctr := open(ctx, b, c, req)
					p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/true"}})
					require.NoError(b, err)
					require.NoError(b, p.Wait())
					require.NoError(b, ctr.Release(ctx))
				}
			}) / containers
		})
		return took
	}, func() time.Duration {
		return timed(func() {
			for range containers {
				command(b, "runc", "run", "--keep", "--bundle="+bundle, "e2e-bench")
				command(b, "runc", "delete", "e2e-bench")
			}
		}) / containers
	})
}

// bareBundle returns a bundle with the specification of a step as the daemon made it, on a root of
// its own. The daemon is made to show it by a runtime that looks at it before it runs it.
func bareBundle(b *testing.B, dir string) string {
	b.Helper()
	seen := filepath.Join(dir, "seen.json")
	runtime := filepath.Join(dir, "runtime")
	require.NoError(b, os.WriteFile(runtime, []byte(`#!/bin/sh
for word; do
	case $last in --bundle | -b) bundle=$word ;; esac
	case $word in --bundle=*) bundle=${word#--bundle=} ;; esac
	last=$word
done
[ -z "$bundle" ] || cp "$bundle/config.json" `+seen+`
exec runc "$@"
`), 0o755))
	d := start(b, harness.DaemonOptions{Dir: dir, Args: []string{"--oci-worker-binary=" + runtime}})
	lower := filepath.Join(dir, "lower")
	d.Build(b, dockerfile(b, "FROM busybox", `RUN ["/bin/true"]`), toLocal(lower))

	var spec map[string]any
	require.NoError(b, json.Unmarshal([]byte(read(b, seen)), &spec))
	bundle, upper, work := filepath.Join(dir, "bundle"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	root := filepath.Join(bundle, "rootfs")
	empty := filepath.Join(bundle, "empty")
	for _, path := range []string{upper, work, root} {
		require.NoError(b, os.MkdirAll(path, 0o755))
	}
	write(b, empty, "")
	require.NoError(b, unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work))
	b.Cleanup(func() { require.NoError(b, unix.Unmount(root, 0)) })

	object(b, spec, "root")["path"] = root
	object(b, spec, "linux")["cgroupsPath"] = "/e2e-bench/step"
	delete(spec, "hooks")
	mounts, ok := spec["mounts"].([]any)
	require.True(b, ok)
	for _, m := range mounts {
		mount, ok := m.(map[string]any)
		require.True(b, ok)
		// What the daemon made for its own step is gone with it.
		if source, ok := mount["source"].(string); ok && filepath.IsAbs(source) {
			if _, err := os.Stat(source); err != nil {
				mount["source"] = empty
			}
		}
	}
	text, err := json.Marshal(spec)
	require.NoError(b, err)
	write(b, filepath.Join(bundle, "config.json"), string(text))
	return bundle
}

func object(b *testing.B, parent map[string]any, key string) map[string]any {
	b.Helper()
	value, ok := parent[key].(map[string]any)
	require.True(b, ok, key)
	return value
}

// A build of a hundred instructions of which nothing runs, against the smallest call there is.
func BenchmarkCachedRebuild(b *testing.B) {
	d := start(b, harness.DaemonOptions{Dir: tmpfs(b, "1g")})
	files := map[string]string{}
	lines := []string{"FROM busybox"}
	for i := range 33 {
		name := fmt.Sprint("file", i)
		files[name] = name
		lines = append(lines, fmt.Sprintf("ENV E%d=%d", i, i), fmt.Sprintf("COPY %s /", name), fmt.Sprint("RUN true ", i))
	}
	files["Dockerfile"] = strings.Join(lines, "\n") + "\n"
	context := tree(b, files)
	d.Build(b, context)
	pair(b,
		func() time.Duration { return timed(func() { require.Empty(b, ran(d.Build(b, context))) }) },
		func() time.Duration { return timed(func() { d.MustBuildctl(b, "debug", "info") }) },
	)
}

// smallTree writes the context of the benchmarks.
func smallTree(b *testing.B, dir string) string {
	b.Helper()
	return smallFiles(b, filepath.Join(dir, "source"), manyFiles, 2<<10)
}

func BenchmarkContextFirst(b *testing.B) {
	dir := tmpfs(b, "3g")
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir})
	source, definition := smallTree(b, dir), marshal(b, llb.Local("context"))
	copied := filepath.Join(dir, "copied")
	pair(b, func() time.Duration {
		prune(b, d)
		return timed(func() { requireSolved(b, solve(b, d, definition, "--local=context="+source)) })
	}, func() time.Duration {
		require.NoError(b, os.RemoveAll(copied))
		require.NoError(b, os.Mkdir(copied, 0o755))
		return shell(b, `tar -C "$1" -c . | tar -C "$2" -x`, source, copied)
	})
}

func BenchmarkContextUnchanged(b *testing.B) {
	dir := tmpfs(b, "3g")
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir})
	source, definition := smallTree(b, dir), marshal(b, llb.Local("context"))
	send := func() time.Duration {
		return timed(func() { requireSolved(b, solve(b, d, definition, "--local=context="+source)) })
	}
	send()
	pair(b, send, func() time.Duration { return shell(b, `find "$1" -printf '%p %s %m %T@\n' > /dev/null`, source) })
}

func BenchmarkContextLargeFile(b *testing.B) {
	dir := tmpfs(b, "3g")
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir})
	source, copied := filepath.Join(dir, "source"), filepath.Join(dir, "copied")
	shell(b, `mkdir "$1"; head -c 536870912 /dev/urandom > "$1/file"`, source)
	definition := marshal(b, llb.Local("context"))
	pair(b, func() time.Duration {
		prune(b, d)
		return timed(func() { requireSolved(b, solve(b, d, definition, "--local=context="+source)) })
	}, func() time.Duration {
		require.NoError(b, os.RemoveAll(copied))
		return shell(b, `cp "$1/file" "$2"; sha256sum "$2"`, source, copied)
	})
}

// exportedTree is what the benchmarks of exports pack: small files and some of text that is worth
// compressing.
func exportedTree() llb.State {
	script := `cd /out; for i in 1 2 3 4 5 6 7 8; do
awk -v s=$i 'BEGIN { srand(s); for (n = 0; n < 900000; n++) printf "%s%d ", substr("the quick brown fox jumps over", 1 + int(rand()*24), 6), rand()*1000 }' > text$i; done`
	small := made(manyFiles/2, strings.Repeat("word ", 100))
	return llb.Image("docker.io/library/busybox").Run(llb.Shell(script), llb.AddMount("/out", small)).GetMount("/out")
}

// benchmarkExport measures an export of a layer that was built and never exported before.
func benchmarkExport(b *testing.B, attributes string, plain func(source, target string) time.Duration) {
	b.Helper()
	dir := tmpfs(b, "4g")
	d := start(b, harness.DaemonOptions{Dir: dir})
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	packed, round := exportedTree(), 0
	requireSolved(b, solve(b, d, marshal(b, packed), toLocal(source)))
	pair(b, func() time.Duration {
		round++
		layer := llb.Copy(packed, "/", "/", llb.CopyDirContents()).Mkfile("/round", 0o644, []byte(fmt.Sprint(round)))
		definition := marshal(b, llb.Scratch().File(layer))
		requireSolved(b, solve(b, d, definition))
		return timed(func() { requireSolved(b, solve(b, d, definition, "--output=type=oci,dest="+target+attributes)) })
	}, func() time.Duration { return plain(source, target) })
}

func BenchmarkExportUncompressed(b *testing.B) {
	benchmarkExport(b, ",compression=uncompressed", func(source, target string) time.Duration {
		return shell(b, `tar -C "$1" -c . > "$2"; sha256sum "$2"`, source, target)
	})
}

func BenchmarkExportGzip(b *testing.B) {
	benchmarkExport(b, ",compression=gzip", func(source, target string) time.Duration {
		return timed(func() { require.NoError(b, gzipTree(b, source, target)) })
	})
}

// gzipTree packs a tree as a layer with one goroutine.
func gzipTree(b *testing.B, source, target string) error {
	b.Helper()
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	defer file.Close()
	compressed, err := gzip.NewWriterLevel(io.MultiWriter(file, sha256.New()), 6)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.Context(), "tar", "-C", source, "-c", ".")
	cmd.Stdout = compressed
	if err := cmd.Run(); err != nil {
		return err
	}
	return compressed.Close()
}

// How the time of a build grows with the width of its graph: an exponent of 1 is in line with it.
func BenchmarkGraph(b *testing.B) {
	const depth = 100
	widths := []int{10, 30, 100}
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: tmpfs(b, "4g")})
	cold, warm := make([][]time.Duration, len(widths)), make([][]time.Duration, len(widths))
	round := 0
	for b.Loop() {
		for i, width := range widths {
			for range 3 {
				round++
				definition := marshal(b, grid(fmt.Sprint(round), width, depth))
				send := func() time.Duration {
					return timed(func() { requireSolved(b, solve(b, d, definition)) })
				}
				cold[i] = append(cold[i], send())
				warm[i] = append(warm[i], send())
				prune(b, d)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	last := len(widths) - 1
	for name, times := range map[string][][]time.Duration{"cold": cold, "cached": warm} {
		for i, width := range widths {
			b.ReportMetric(milliseconds(median(times[i])), fmt.Sprintf("ms/%d-%s", width*depth, name))
		}
		growth := float64(median(times[last])) / float64(median(times[0]))
		b.ReportMetric(math.Log(growth)/math.Log(float64(widths[last])/float64(widths[0])), "exponent/"+name)
	}
}

// The memory of a daemon that has nothing to do, at first and after builds.
func BenchmarkIdleMemory(b *testing.B) {
	const mebibyte = 1 << 20
	d := start(b, harness.DaemonOptions{Dir: tmpfs(b, "1g")})
	context := dockerfile(b, "FROM busybox", "RUN true")
	fresh := memory(b, d.Pid(), "VmRSS")
	for b.Loop() {
		d.Build(b, context, "--no-cache")
	}
	d.RequireIdle(b)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(fresh)/mebibyte, "MiB/fresh")
	b.ReportMetric(float64(memory(b, d.Pid(), "VmRSS"))/mebibyte, "MiB/used")
}

// From the start of the process to its first answer, on the state of some builds.
func BenchmarkStart(b *testing.B) {
	d := start(b, harness.DaemonOptions{Dir: tmpfs(b, "1g")})
	d.Build(b, dockerfile(b, "FROM busybox", "RUN true", "RUN echo > /x"))
	var times []time.Duration
	for b.Loop() {
		for range turns {
			d.Stop(b)
			times = append(times, timed(func() { d.Start(b) }))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(times)), "ms/start")
}
