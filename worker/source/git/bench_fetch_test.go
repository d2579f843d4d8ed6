//go:build linux

package git

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/source"
)

// BenchmarkFetch compares a checkout of one commit of a repository of 2,000 with what git takes to
// fetch and check it out by itself; and the next commit, of which only the difference comes. The
// processor time is that of all processes of git, those of the server included.
func BenchmarkFetch(b *testing.B) {
	root := b.TempDir()
	r := manyCommits(b, root, 2000)
	s := serve(b, root)
	n := 0
	next := func() {
		n++
		r.write("next", fmt.Sprint(n))
		r.commit("next")
	}
	measure := func(name string, prepare, run func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				prepare(b)
				before := childTime()
				b.StartTimer()
				run(b)
				cpu += childTime() - before
			}
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
	// The last clone outlives its benchmark.
	var clone *repo
	folder := b.TempDir
	fetch := func(b *testing.B) {
		clone.t = b
		clone.git("fetch", "-q", "--depth=1", s.url("r"), "main")
		clone.git("checkout", "-q", "FETCH_HEAD")
	}
	measure("git/first", func(b *testing.B) {
		clone = &repo{b, folder()}
		clone.git("init", "-q")
	}, fetch)
	measure("git/next", func(*testing.B) { next() }, fetch)
	var d *bench
	measure("ours/first", func(b *testing.B) { d = newBench(b) }, func(b *testing.B) { fetchOnce(b, d, s, r) })
	d = newBench(b)
	fetchOnce(b, d, s, r)
	measure("ours/next", func(*testing.B) { next() }, func(b *testing.B) { fetchOnce(b, d, s, r) })
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
	require.NoError(b, ref.Release(b.Context()))
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
