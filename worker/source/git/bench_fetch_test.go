//go:build linux

package git

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/source"
)

// BenchmarkFetch compares a checkout of one commit of a repository of 2,000 with what git takes to
// fetch and check it out by itself; and the next commit, of which only the difference comes. The two
// take turns, and the ratios are those of medians. The processor time is that of all processes of
// git, those of the server included.
func BenchmarkFetch(b *testing.B) {
	root := b.TempDir()
	r := manyCommits(b, root, 2000)
	s := serve(b, root)
	plain := func(b *testing.B, dir string) {
		tree := b.TempDir()
		clone := &repo{b, dir}
		clone.git("fetch", "-q", "--depth=1", s.url("r"), "main")
		clone.git("--work-tree="+tree, "checkout", "-q", "-f", "FETCH_HEAD", "--", ".")
	}
	empty := func(b *testing.B) string {
		dir := b.TempDir()
		(&repo{b, dir}).git("init", "-q")
		return dir
	}
	b.Run("first", func(b *testing.B) {
		compare(b, func() func() {
			dir := empty(b)
			return func() { plain(b, dir) }
		}, func() func() {
			d := newBench(b)
			return func() { fetchOnce(b, d, s, r) }
		})
	})
	b.Run("next", func(b *testing.B) {
		n := 0
		next := func() {
			n++
			r.write("next", fmt.Sprint(n))
			r.commit("next")
		}
		dir, d := empty(b), newBench(b)
		plain(b, dir)
		fetchOnce(b, d, s, r)
		compare(b, func() func() {
			next()
			return func() { plain(b, dir) }
		}, func() func() { return func() { fetchOnce(b, d, s, r) } })
	})
}

// compare runs two things by turns and reports how much more the second one takes. Either is prepared
// by a function that returns what is measured.
func compare(b *testing.B, first, second func() func()) {
	var cpu, wall [2][]time.Duration
	for b.Loop() {
		for n, prepare := range []func() func(){first, second} {
			run := prepare()
			before, start := childTime(), time.Now()
			run()
			wall[n] = append(wall[n], time.Since(start))
			cpu[n] = append(cpu[n], childTime()-before)
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	b.ReportMetric(0, "ns/op") // of both is that of neither
	b.ReportMetric(median(cpu[1])/1e6, "cpu-ms")
	b.ReportMetric(median(cpu[1])/median(cpu[0]), "cpu/git")
	b.ReportMetric(median(wall[1])/median(wall[0]), "time/git")
}

// childTime is the processor time of processes that have ended.
func childTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func fetchOnce(b *testing.B, d *bench, s *server, r *repo) {
	b.Helper()
	i := d.instance(s.url("r"), "main", nil, &source.Memo{})
	_, _, err := i.Key(b.Context(), 0)
	require.NoError(b, err)
	ref, err := i.Fetch(b.Context())
	require.NoError(b, err)
	// Removing the files is no part of this.
	b.Cleanup(func() { require.NoError(b, ref.Release(context.WithoutCancel(b.Context()))) })
}

// manyCommits makes a repository with n commits, each of which changes one of 200 files.
func manyCommits(tb testing.TB, root string, n int) *repo {
	tb.Helper()
	r := &repo{tb, filepath.Join(root, "r")}
	require.NoError(tb, os.MkdirAll(r.dir, 0o755))
	r.git("init", "-q", "-b", "main")
	var in bytes.Buffer
	for i := range n {
		data := bytes.Repeat([]byte(fmt.Sprintf("line %d\n", i)), 200)
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 1\nx\n", 1767225600+i)
		fmt.Fprintf(&in, "M 100644 inline d%d/f%d\ndata %d\n%s\n", i%20, i%200, len(data), data)
	}
	cmd := exec.Command("git", "fast-import", "--quiet")
	cmd.Dir, cmd.Stdin = r.dir, &in
	out, err := cmd.CombinedOutput()
	require.NoError(tb, err, string(out))
	r.git("reset", "-q", "--hard")
	return r
}
