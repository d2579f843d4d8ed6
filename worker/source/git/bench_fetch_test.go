//go:build linux

package git

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker/source"
)

// BenchmarkFetch compares a checkout of one commit of a repository of 2,000 with what git takes to
// fetch and check it out by itself; and the next commit, of which only the difference comes.
func BenchmarkFetch(b *testing.B) {
	root := b.TempDir()
	r := manyCommits(b, root, 2000)
	s := serve(b, root)
	b.Run("git", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			c := &repo{b, dir}
			b.StartTimer()
			c.git("init", "-q")
			c.git("fetch", "-q", "--depth=1", s.url("r"), "main")
			c.git("checkout", "-q", "FETCH_HEAD")
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			d := newBench(b)
			b.StartTimer()
			fetchOnce(b, d, s, r)
		}
	})
	b.Run("next", func(b *testing.B) {
		d := newBench(b)
		fetchOnce(b, d, s, r)
		n := 0
		for b.Loop() {
			b.StopTimer()
			n++
			r.write("next", fmt.Sprint(n))
			r.commit("next")
			b.StartTimer()
			fetchOnce(b, d, s, r)
		}
	})
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
