package e2e_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// connect returns a client of the daemon in this process.
func connect(tb testing.TB, d *harness.Daemon) *bkclient.Client {
	tb.Helper()
	c, err := bkclient.New(d.Addr)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// benchmarkOutput measures a step that prints what a script does, against one that writes it to a file in
// its own container. What was printed has to be in the record, whole and in order.
func benchmarkOutput(b *testing.B, script string, want [sha256.Size]byte) {
	b.Helper()
	d := start(b, harness.DaemonOptions{Dir: disk(b)})
	c := connect(b, d)
	files := map[string]string{"text": textOfLines()}
	round := 0
	step := func(line string) time.Duration {
		round++
		// Both begin with the same: memory that the last has given back, and a disk that is not busy.
		prune(b, d)
		files["Dockerfile"] = "FROM busybox\nCOPY text /text\n"
		ref, _ := recorded(b, d, tree(b, files))
		d.MustBuildctl(b, "debug", "ctl", "--delete", ref)
		unix.Sync()
		files["Dockerfile"] += fmt.Sprintf("RUN true %d; %s\n", round, line)
		took := time.Duration(0)
		ref, result := recorded(b, d, tree(b, files))
		require.Zero(b, result.Code, result.Stderr)
		sum := sha256.New()
		require.NoError(b, c.Status(b.Context(), ref, event.SinkFunc(func(batch event.Batch) {
			for _, v := range batch.Vertices {
				if strings.Contains(v.Name, "] RUN ") && v.Completed != nil {
					took = v.Completed.Sub(*v.Started)
				}
			}
			for _, l := range batch.Logs {
				_, _ = sum.Write(l.Data)
			}
		})))
		if !strings.Contains(line, "> /file") {
			require.Equal(b, want[:], sum.Sum(nil), "what is in the record")
		}
		d.MustBuildctl(b, "debug", "ctl", "--delete", ref)
		return took
	}
	step(script + " | cat > /file")
	before := memory(b, d.Pid(), "VmRSS")
	pair(b, func() time.Duration { return step(script) }, func() time.Duration { return step(script + " | cat > /file") })
	b.ReportMetric(float64(peakMemory(b, d.Pid())-before)/(1<<20), "MiB/peak")
}

// disk returns a folder on a disk, for what is not to be in memory.
func disk(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "e2e-") //nolint:usetesting // the path of a socket may have 107 bytes only
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, os.RemoveAll(dir)) })
	return dir
}

// textSize is that of the text that steps print some times.
const textSize = 32 << 20

func textOfLines() string {
	var b strings.Builder
	for i := 0; b.Len() < textSize-64; i++ {
		fmt.Fprintf(&b, "%063d\n", i)
	}
	return b.String()
}

func sumOfLines(times int) (sum [sha256.Size]byte) {
	h, text := sha256.New(), []byte(textOfLines())
	for range times {
		_, _ = h.Write(text)
	}
	h.Sum(sum[:0])
	return sum
}

// A step that prints a gibibyte as fast as it can.
func BenchmarkOutputOfAGibibyte(b *testing.B) {
	const times = 1 << 30 / textSize
	script := fmt.Sprintf("for i in $(seq %d); do cat /text; done", times)
	benchmarkOutput(b, script, sumOfLines(times))
}

// A step that prints 20 MiB a second, in pieces.
func BenchmarkSteadyOutput(b *testing.B) {
	const seconds, pieces = 8, 10
	const piece = 2 << 20 // bytes, ten times a second
	script := fmt.Sprintf("for i in $(seq %d); do dd if=/text bs=%d count=1 2>/dev/null; usleep %d; done", seconds*pieces, piece, 1_000_000/pieces)
	h, text := sha256.New(), []byte(textOfLines())[:piece]
	for range seconds * pieces {
		_, _ = h.Write(text)
	}
	benchmarkOutput(b, script, [sha256.Size]byte(h.Sum(nil)))
}

// A build that 200 clients watch, of whom half do not read, against the same with its own client only.
func BenchmarkWatchedByMany(b *testing.B) {
	const watchers = 200
	d := start(b, harness.DaemonOptions{Dir: tmpfs(b, "1g")})
	clients := make([]*bkclient.Client, watchers)
	for i := range clients {
		clients[i] = connect(b, d)
	}
	own, round := connect(b, d), 0
	build := func(watchers []*bkclient.Client) time.Duration {
		round++
		ref := bkclient.NewRef()
		script := fmt.Sprintf("true %d; for i in $(seq 100); do seq 100; usleep 10000; done", round)
		definition := marshal(b, llb.Image("docker.io/library/busybox").Run(llb.Shell(script)).Root())
		ctx, stop := context.WithCancel(b.Context())
		var all sync.WaitGroup
		for i, c := range watchers {
			all.Go(func() {
				_ = c.Status(ctx, ref, event.SinkFunc(func(event.Batch) {
					if i%2 == 0 {
						<-ctx.Done() // this one reads nothing more
					}
				}))
			})
		}
		took := timed(func() {
			_, err := own.Solve(b.Context(), definition, bkclient.SolveOpt{Ref: ref, Progress: event.Discard})
			require.NoError(b, err)
		})
		stop()
		all.Wait()
		return took
	}
	build(nil)
	pair(b, func() time.Duration { return build(clients) }, func() time.Duration { return build(nil) })
	b.ReportMetric(float64(peakMemory(b, d.Pid()))/(1<<20), "MiB/peak")
}

// Thousands of records, none of which goes: to list them, to start with them, and what each costs in memory
// that is not that of a file.
func BenchmarkManyRecords(b *testing.B) {
	const builds, quarter = 5000, 1250
	d := start(b, harness.DaemonOptions{Dir: tmpfs(b, "2g"), Config: "[history]\nmaxEntries = 100000\n"})
	c := connect(b, d)
	definition := marshal(b, llb.Image("docker.io/library/busybox").Run(llb.Shell("true")).Root())
	var resident []int64
	for n := range builds {
		_, err := c.Solve(b.Context(), definition, bkclient.SolveOpt{Progress: event.Discard})
		require.NoError(b, err)
		if n%quarter == quarter-1 {
			resident = append(resident, memory(b, d.Pid(), "RssAnon"))
		}
	}
	var list, restart []time.Duration
	for b.Loop() {
		list = append(list, timed(func() {
			out := d.MustBuildctl(b, "debug", "histories").Stdout
			require.Equal(b, builds+1, strings.Count(out, "\n"))
		}))
		d.Stop(b)
		restart = append(restart, timed(func() { d.Start(b) }))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(list)), "ms/list")
	b.ReportMetric(milliseconds(median(restart)), "ms/start")
	b.ReportMetric(float64(resident[3]-resident[1])/(2*quarter), "B/build")
}
