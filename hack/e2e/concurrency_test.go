package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// ending is how a client of a crowd ends.
type ending int

const (
	finished ending = iota
	interrupted
	killed
)

// member is a client of a crowd, and what its result has to be.
type member struct {
	*client
	ending ending
	out    string
	want   string
}

func TestSoakManyClientsAtOnceDoNotDisturbEachOther(t *testing.T) {
	const clients, variants = 64, 8
	d := start(t, harness.DaemonOptions{Debug: true})
	d.Build(t, dockerfile(t, "FROM busybox", "RUN true"), toLocal(t.TempDir()))
	d.RequireIdle(t)
	before := d.Goroutines(t)

	for round := range harness.Rounds(1, 50) {
		seed := rand.Uint64() //nolint:gosec // picks who is cancelled
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // picks who is cancelled
		dirs := make([]string, variants)
		for v := range dirs {
			dirs[v] = tree(t, map[string]string{
				"Dockerfile": fmt.Sprintf(`FROM busybox AS prepare
COPY input /input
ARG unique
RUN : $unique; sleep 0.%[1]d; echo %[2]d-%[1]d > /number
FROM busybox AS other
RUN sleep 0.3; echo %[2]d > /common
FROM scratch
COPY --from=prepare /number /input /
COPY --from=other /common /
`, v, round),
				"input": fmt.Sprint("input ", v),
			})
		}
		var crowd []*member
		for i := range clients {
			m := &member{out: t.TempDir(), want: fmt.Sprintf("%d-%d\n", round, i%variants)}
			args := []string{toLocal(m.out)}
			if i%4 == 0 {
				args = append(args, fmt.Sprintf("--opt=build-arg:unique=%d-%d", round, i))
			}
			m.client = launchBuild(t, d, dirs[i%variants], args...)
			crowd = append(crowd, m)
		}
		// Every third is cancelled, at any time: while it connects, waits for others, runs or exports.
		for _, i := range random.Perm(clients)[:clients/3] {
			after(t, time.Duration(random.Int64N(int64(200*time.Millisecond))))
			m := crowd[i]
			m.ending = interrupted
			s := syscall.SIGINT
			if random.IntN(3) == 0 {
				m.ending, s = killed, syscall.SIGKILL
			}
			m.signal(t, s)
		}
		for i, m := range crowd {
			result := m.wait(t)
			if m.ending != finished {
				continue
			}
			require.Zero(t, result.Code, "client %d: %s", i, result.Stderr)
			require.Equal(t, m.want, read(t, m.out, "number"))
			require.Equal(t, fmt.Sprint("input ", i%variants), read(t, m.out, "input"))
		}
		d.RequireIdle(t)
		requireGoroutines(t, d, before, 30*time.Second)
		requireAlive(t, d)
	}
	requirePruned(t, d)
}

// The steps of one build are shared by all who want them while they run.
func TestTheSameStepOfManyBuildsRunsOnce(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM busybox", "RUN sleep 2; cat /proc/sys/kernel/random/uuid > /id", "FROM scratch", "COPY --from=0 /id /")
	var clients []*client
	var outs []string
	for range 8 {
		out := t.TempDir()
		outs = append(outs, filepath.Join(out, "id"))
		clients = append(clients, launchBuild(t, d, dir, toLocal(out)))
	}
	// The one who came first goes away; those who wait for its step go on.
	clients[0].await(t, "RUN sleep 2")
	clients[0].signal(t, syscall.SIGINT)
	clients[0].wait(t)
	for _, c := range clients[1:] {
		result := c.wait(t)
		require.Zero(t, result.Code, result.Stderr)
	}
	for _, out := range outs[1:] {
		require.Equal(t, read(t, outs[1]), read(t, out))
	}
	d.RequireIdle(t)
}
