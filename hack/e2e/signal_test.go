package e2e_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestInterruptedBuildsEndAndLeaveNothing(t *testing.T) {
	d := start(t, harness.DaemonOptions{Debug: true})
	d.Build(t, dockerfile(t, "FROM busybox", "RUN true"))
	d.RequireIdle(t)
	before := d.Goroutines(t)

	for name, step := range map[string]string{
		"a step that sleeps":              "echo begun; sleep 1000",
		"a step that ignores signals":     "trap '' TERM INT HUP; echo begun; while true; do sleep 1; done",
		"a step with children":            "for i in 1 2 3 4; do sleep 1000 & done; setsid sleep 1000 & echo begun; wait",
		"a step that prints without end":  "echo begun; while true; do echo line; done",
		"a step that writes to the disk":  "echo begun; while true; do head -c 100000 /dev/urandom > /f; done",
		"a step that waits for its input": "echo begun; cat /dev/tty; sleep 1000",
	} {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprintf("%s, by %v", name, s), func(t *testing.T) {
				c := launchBuild(t, d, dockerfile(t, "FROM busybox", "RUN "+step))
				c.await(t, "begun")
				c.signal(t, s)
				result := c.waitWithin(t, 10*time.Second)
				require.Equal(t, 1, result.Code)
				require.Contains(t, result.Stderr, "CANCELED", "what was cancelled is printed")
				require.Contains(t, result.Stderr, "error: ")
				d.RequireIdle(t)
			})
		}
	}
	requireGoroutines(t, d, before, 20*time.Second)
	requireAlive(t, d)
}

func TestAStoppingDaemonLetsBuildsEndAndTakesNoMore(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Args: []string{"--shutdown-timeout=60s"}})
	conn := dial(t, d.Addr)
	c := launchBuild(t, d, dockerfile(t, "FROM busybox", "RUN echo begun; sleep 4; echo ended"), toLocal(t.TempDir()))
	c.await(t, "begun")
	d.Signal(t, syscall.SIGTERM)

	// The daemon hears of the signal some time after it was sent.
	eventually(t, 3*time.Second, func() error {
		_, err := controlpb.NewControlClient(conn).Solve(t.Context(), &controlpb.SolveRequest{Ref: fmt.Sprint(time.Now().UnixNano())})
		if status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a new build got %w", err)
		}
		return nil
	})
	refused := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM scratch", "COPY Dockerfile /"))...)
	require.Equal(t, 1, refused.Code, refused.Stderr)

	ended := c.waitWithin(t, 30*time.Second)
	require.Zero(t, ended.Code, ended.Stderr)
	requireEnds(t, d, 10*time.Second)
	d.Start(t)
	requireAlive(t, d)
}

func TestAStoppingDaemonEndsBuildsThatTakeTooLong(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Args: []string{"--shutdown-timeout=2s"}})
	kept := dockerfile(t, "FROM busybox", "RUN echo kept > /kept")
	d.Build(t, kept)
	c := launchBuild(t, d, dockerfile(t, "FROM busybox", "RUN echo begun; sleep 1000"))
	c.await(t, "begun")
	began := time.Now()
	d.Signal(t, syscall.SIGTERM)
	require.Equal(t, 1, c.waitWithin(t, 20*time.Second).Code)
	require.GreaterOrEqual(t, time.Since(began), 2*time.Second-100*time.Millisecond, "the build was given its time")
	requireEnds(t, d, 10*time.Second)
	d.Start(t)
	require.Empty(t, ran(d.Build(t, kept)))
}

func TestASecondSignalEndsRunningBuildsAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Args: []string{"--shutdown-timeout=300s"}})
	c := launchBuild(t, d, dockerfile(t, "FROM busybox", "RUN echo begun; sleep 1000"))
	c.await(t, "begun")
	d.Signal(t, syscall.SIGTERM)
	// The second of two signals at once would be lost.
	after(t, 500*time.Millisecond)
	d.Signal(t, syscall.SIGTERM)
	require.Equal(t, 1, c.waitWithin(t, 20*time.Second).Code)
	requireEnds(t, d, 10*time.Second)
	d.Start(t)
}

// requireEnds waits for a daemon that was told to stop; its leaks are looked for as after Stop.
func requireEnds(t *testing.T, d *harness.Daemon, limit time.Duration) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.Done():
	case <-timer.C:
		t.Fatalf("the daemon still runs %v after its last build", limit)
	}
	d.Stop(t)
}
