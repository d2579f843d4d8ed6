package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

const (
	// manyFiles is a tree large enough to fill every buffer on the way, in both directions.
	manyFiles = 20_000
	// The most memory that a transfer of manyFiles may take. It has to do with buffers and the list
	// of names, not with what is in the files.
	daemonMemory = 256 << 20
	clientMemory = 160 << 20
)

// smallFiles writes n files of size bytes, a hundred in a folder, to dir, and returns it. No two
// are alike.
func smallFiles(tb testing.TB, dir string, n, size int) string {
	tb.Helper()
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, size)
	for i := range n {
		folder := filepath.Join(dir, fmt.Sprintf("folder%03d", i/100))
		if i%100 == 0 {
			require.NoError(tb, os.MkdirAll(folder, 0o755))
		}
		_, _ = random.Read(data) // never fails
		require.NoError(tb, os.WriteFile(filepath.Join(folder, fmt.Sprintf("file%05d", i)), data, 0o644))
	}
	return dir
}

// touch gives every file below dir a new time, so that it is sent again.
func touch(tb testing.TB, dir string, when time.Time) {
	tb.Helper()
	require.NoError(tb, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chtimes(path, when, when)
	}))
}

// countFiles returns how many files are below dir, and how many bytes they hold.
func countFiles(tb testing.TB, dir string) (n int, size int64) {
	tb.Helper()
	require.NoError(tb, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			n, size = n+1, size+info.Size()
		}
		return err
	}))
	return n, size
}

// made is a tree of n small files that a step makes; word is in every one.
func made(n int, word string) llb.State {
	script := fmt.Sprintf("cd /out; i=0; while [ $i -lt %d ]; do [ $((i %% 100)) = 0 ] && mkdir d$i && cd /out/d$i; echo %s $i > f$i; i=$((i+1)); done", n, word)
	return llb.Image("docker.io/library/busybox").Run(llb.Shell(script), llb.AddMount("/out", llb.Scratch())).GetMount("/out")
}

func TestSoakAContextOfManySmallFilesArrives(t *testing.T) {
	dir := tmpfs(t, "2g")
	d := harness.StartDaemon(t, harness.DaemonOptions{Dir: dir})
	source := smallFiles(t, filepath.Join(dir, "source"), manyFiles, 200)
	definition := marshal(t, llb.Local("context"))
	times := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)

	rounds := harness.Rounds(10, 500)
	memory := newLedger(t, d, rounds)
	for round := range rounds {
		touch(t, source, times.Add(time.Duration(round)*time.Hour))
		c := solve(t, d, definition, "--local=context="+source)
		requireSolved(t, c)
		memory.round(c)
	}
	memory.end()

	out := filepath.Join(dir, "out")
	requireSolved(t, solve(t, d, definition, "--local=context="+source, toLocal(out)))
	command(t, "diff", "-r", source, out)
	d.RequireIdle(t)
}

func TestSoakAnExportOfManySmallFilesArrives(t *testing.T) {
	dir := tmpfs(t, "2g")
	d := start(t, harness.DaemonOptions{Dir: dir})
	definition := marshal(t, made(manyFiles, "word"))
	requireSolved(t, solve(t, d, definition))

	rounds := harness.Rounds(10, 500)
	memory := newLedger(t, d, rounds)
	for range rounds {
		out := filepath.Join(dir, "out")
		c := solve(t, d, definition, toLocal(out))
		requireSolved(t, c)
		memory.round(c)
		n, _ := countFiles(t, out)
		require.Equal(t, manyFiles, n)
		require.NoError(t, os.RemoveAll(out))
	}
	memory.end()
	d.RequireIdle(t)
}

// limp lets a client run for a fraction of the time only, until it ends.
func limp(t *testing.T, c *client) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		if turn%3 == 0 {
			c.signal(t, syscall.SIGCONT)
		} else {
			c.signal(t, syscall.SIGSTOP)
		}
	}
}

func TestAClientThatIsSlowGetsAndSendsEverything(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "1g")
	d := start(t, harness.DaemonOptions{Dir: dir})
	source := smallFiles(t, filepath.Join(dir, "source"), manyFiles, 200)
	out := filepath.Join(dir, "out")

	c := solve(t, d, marshal(t, llb.Local("context")), "--local=context="+source, toLocal(out))
	limp(t, c)
	requireSolved(t, c)
	n, size := countFiles(t, out)
	require.Equal(t, manyFiles, n)
	require.Equal(t, int64(manyFiles*200), size)
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory), "memory of the daemon")
}

func TestSoakAClientThatVanishesLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "2g")
	d := start(t, harness.DaemonOptions{Dir: dir, Debug: true})
	source := smallFiles(t, filepath.Join(dir, "source"), manyFiles/4, 200)
	d.Build(t, dockerfile(t, "FROM busybox", "RUN true"), toLocal(t.TempDir()))
	d.RequireIdle(t)
	before := d.Goroutines(t)

	for round := range harness.Rounds(12, 200) {
		// The phases of a build: contexts, a pull, containers, an export; new ones each time.
		write(t, filepath.Join(source, "Dockerfile"), fmt.Sprintf(`FROM busybox AS a
COPY . /context
RUN --mount=type=cache,target=/c,sharing=locked cp -r /context /c/%[1]d && sleep 0.2
FROM onbuild AS never
FROM busybox
RUN mkdir /out; cd /out; for i in $(seq 1 3000); do echo %[1]d > $i; done
COPY --from=a /context /out/context
`, round))
		touch(t, source, time.Date(2022, 1, 1, round, 0, 0, 0, time.UTC))
		c := launchBuild(t, d, source, toLocal(t.TempDir()))
		after(t, time.Duration(rand.Int64N(int64(3*time.Second)))) //nolint:gosec // when a client goes is no secret
		c.signal(t, syscall.SIGKILL)
		c.wait(t)
		d.RequireIdle(t)
	}
	requireGoroutines(t, d, before, 20*time.Second)
	requireAlive(t, d)
	requirePruned(t, d)
}

// stall is how long the daemon may take to give up a client that is connected and silent, and some
// time more for a slow machine.
const stall = 45*time.Second + 20*time.Second

func TestAClientThatStopsIsGivenUpAndDisturbsNobody(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "1g")
	d := start(t, harness.DaemonOptions{Dir: dir, Debug: true})
	source := smallFiles(t, filepath.Join(dir, "source"), manyFiles, 500)
	exported := marshal(t, made(manyFiles, "exported"))
	requireSolved(t, solve(t, d, exported, toLocal(filepath.Join(dir, "warm"))))
	d.RequireIdle(t)
	before := d.Goroutines(t)

	sends := solve(t, d, marshal(t, llb.Local("context")), "--local=context="+source)
	out := filepath.Join(dir, "out")
	receives := solve(t, d, exported, toLocal(out))
	runs := launchBuild(t, d, dockerfile(t, "FROM busybox", "RUN echo begun; sleep 1000"))
	sends.await(t, "transferring")
	eventually(t, 30*time.Second, func() error {
		if n, err := os.ReadDir(out); len(n) == 0 {
			return fmt.Errorf("nothing was exported yet: %w", errors.Join(err, receivesError(receives)))
		}
		return nil
	})
	runs.await(t, "begun")
	stopped := []*client{sends, receives, runs}
	for _, c := range stopped {
		c.signal(t, syscall.SIGSTOP)
	}
	defer func() {
		for _, c := range stopped {
			c.signal(t, syscall.SIGCONT)
		}
	}()
	requireAlive(t, d)
	requireGoroutines(t, d, before, stall)
	d.RequireIdle(t)
	requireAlive(t, d)

	for _, c := range stopped {
		c.signal(t, syscall.SIGCONT)
	}
	for _, c := range []*client{sends, runs} {
		require.Equal(t, 1, c.waitWithin(t, 30*time.Second).Code)
	}
	receives.waitWithin(t, 30*time.Second) // it may have had all before it stopped
}

func receivesError(c *client) error {
	if text := c.stderr.String(); strings.Contains(text, "error:") {
		return errors.New(text)
	}
	return nil
}
