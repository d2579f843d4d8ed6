package harness

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openbuildkit/buildkit/hack/plain"
)

// clientTimeout ends a client that hangs. It is far beyond what any test takes.
const clientTimeout = 5 * time.Minute

// Result is what a client printed and how it ended.
type Result struct {
	Stdout, Stderr string
	// Code is the exit code, or -1 after a signal.
	Code int
}

// Command returns a command that runs buildctl against the daemon, for tests that need its input,
// its terminal or its signals. It runs in the folder of the test's package.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "buildctl"), args...)
	cmd.Env = d.clientEnv()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Buildctl runs buildctl with the arguments and returns what came of it, whatever its exit code.
// One that hangs fails the test, and the daemon's goroutines are in the log.
func (d *Daemon) Buildctl(tb testing.TB, args ...string) Result {
	tb.Helper()
	return d.BuildctlIn(tb, "", args...)
}

// BuildctlIn is Buildctl in a working folder.
func (d *Daemon) BuildctlIn(tb testing.TB, dir string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), clientTimeout)
	defer cancel()
	cmd := d.Command(ctx, args...)
	cmd.Dir = dir
	return d.run(ctx, tb, cmd)
}

func (d *Daemon) run(ctx context.Context, tb testing.TB, cmd *exec.Cmd) Result {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		d.process.dump()
		tb.Fatalf("buildctl %s hung for %v\n%s", strings.Join(cmd.Args[1:], " "), clientTimeout, result.Stderr)
	case err != nil && !errors.As(err, &exit):
		tb.Fatalf("buildctl %s: %v", strings.Join(cmd.Args[1:], " "), err)
	}
	return result
}

// MustBuildctl is Buildctl that fails the test unless the exit code is 0.
func (d *Daemon) MustBuildctl(tb testing.TB, args ...string) Result {
	tb.Helper()
	result := d.Buildctl(tb, args...)
	if result.Code != 0 {
		tb.Fatalf("buildctl %s: exit code %d\n%s", strings.Join(args, " "), result.Code, result.Stderr)
	}
	return result
}

// DockerfileArgs returns the arguments of a build of the Dockerfile in dir with plain progress;
// more follow.
func DockerfileArgs(dir string, more ...string) []string {
	return append([]string{
		"build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local=context=" + dir, "--local=dockerfile=" + dir,
	}, more...)
}

// Build builds the Dockerfile in dir and fails the test unless that succeeds; more are arguments
// such as "--output=type=local,dest=out".
func (d *Daemon) Build(tb testing.TB, dir string, more ...string) Result {
	tb.Helper()
	return d.MustBuildctl(tb, DockerfileArgs(dir, more...)...)
}

// Executed returns the names of the steps that ran, from the plain progress that a client printed.
func (r Result) Executed() []string { return plain.Executed(r.Stderr) }

// Cached returns the names of the steps whose results came from the cache.
func (r Result) Cached() []string { return plain.Cached(r.Stderr) }
