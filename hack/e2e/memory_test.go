package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// ledger keeps what a daemon and its clients take in memory over the rounds of a test, and reports
// some of it while the test runs.
type ledger struct {
	tb     testing.TB
	daemon *harness.Daemon
	rounds int
	began  time.Time

	resident []int64 // of the daemon, after each round
	client   int64   // the most that one took
}

// growth is how much the daemon's memory may differ between the second and the last quarter of
// many rounds: less than it differs between two rounds at times.
const growth = 48 << 20

func newLedger(tb testing.TB, d *harness.Daemon, rounds int) *ledger {
	tb.Helper()
	resetPeak(tb, d.Pid())
	return &ledger{tb: tb, daemon: d, rounds: rounds, began: time.Now()}
}

// round takes note of a client that has done the work of a round.
func (l *ledger) round(c *client) {
	l.tb.Helper()
	require.Less(l.tb, c.peakMemory(), int64(clientMemory), "memory of the client")
	l.client = max(l.client, c.peakMemory())
	l.resident = append(l.resident, memory(l.tb, l.daemon.Pid(), "VmRSS"))
	if n := len(l.resident); n%max(l.rounds/10, 1) == 0 {
		l.tb.Logf("%d of %d rounds, %v each: the daemon has %d MiB and had %d MiB at most, a client %d MiB at most",
			n, l.rounds, (time.Since(l.began) / time.Duration(n)).Round(time.Millisecond),
			l.resident[n-1]>>20, peakMemory(l.tb, l.daemon.Pid())>>20, l.client>>20)
	}
}

// end fails the test if the daemon took too much memory or ever more of it.
func (l *ledger) end() {
	l.tb.Helper()
	require.Less(l.tb, peakMemory(l.tb, l.daemon.Pid()), int64(daemonMemory), "memory of the daemon")
	quarter := len(l.resident) / 4
	if quarter == 0 {
		return
	}
	before, after := mean(l.resident[quarter:2*quarter]), mean(l.resident[len(l.resident)-quarter:])
	require.Less(l.tb, after-before, int64(growth), "memory that the daemon keeps: %d, then %d bytes", before, after)
}

func mean(values []int64) int64 {
	var sum int64
	for _, v := range values {
		sum += v
	}
	return sum / int64(len(values))
}

// What a build of many steps has in memory, its graph, progress and record, goes when it has ended.
func TestBuildsThatHaveEndedTakeNoMemory(t *testing.T) {
	const builds, kept = 30, 3 << 20
	d := start(t, harness.DaemonOptions{Debug: true})
	lines := []string{"FROM busybox"}
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("ENV E%d=%d", i, i), fmt.Sprintf("COPY <<E /f%d\n%d\nE", i, i))
	}
	context := dockerfile(t, lines...)
	d.Build(t, context)
	d.Build(t, context)
	after(t, traceGrace)
	before := d.Heap(t)
	for range builds {
		d.Build(t, context)
	}
	d.RequireIdle(t)
	after(t, traceGrace)
	more := d.Heap(t) - before
	t.Logf("%d bytes, and %d more after %d builds", before, more, builds)
	require.Less(t, more, kept)
}

// traceGrace is how long a record waits for spans, and a little.
const traceGrace = 4 * time.Second
