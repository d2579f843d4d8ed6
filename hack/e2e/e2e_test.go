package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// clientTimeout ends a client that hangs; it is beyond what any build here takes.
const clientTimeout = 4 * time.Minute

// start starts a registry with the busybox images and a daemon that pulls from it.
func start(tb testing.TB, options harness.DaemonOptions) *harness.Daemon {
	tb.Helper()
	options.Registry = harness.StartRegistry(tb)
	options.Registry.PushBusybox(tb)
	return harness.StartDaemon(tb, options)
}

// tree writes files, by their paths, to a new folder.
func tree(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		write(tb, filepath.Join(dir, name), text)
	}
	return dir
}

// dockerfile writes a context that holds nothing but a Dockerfile.
func dockerfile(tb testing.TB, lines ...string) string {
	tb.Helper()
	return tree(tb, map[string]string{"Dockerfile": strings.Join(lines, "\n") + "\n"})
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(tb, os.WriteFile(path, []byte(text), 0o644))
}

func read(tb testing.TB, path ...string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(tb, err)
	return string(text)
}

// ran returns the steps that a build executed, sorted. To resolve the base of a stage is no step of
// that kind.
func ran(r harness.Result) []string {
	steps := slices.DeleteFunc(r.Executed(), isBase)
	slices.Sort(steps)
	return steps
}

// cached returns the steps that a build had in the cache, sorted, without the bases.
func cached(r harness.Result) []string {
	steps := slices.DeleteFunc(r.Cached(), isBase)
	slices.Sort(steps)
	return steps
}

func isBase(step string) bool { return strings.Contains(step, "] FROM ") }

// toLocal is the output that writes the result's files to dir.
func toLocal(dir string) string { return "--output=type=local,dest=" + dir }

// client is a buildctl at work.
type client struct {
	daemon *harness.Daemon
	cmd    *exec.Cmd
	stderr *output
	done   chan struct{}
	// ctx tells, after the end, whether that was for its time.
	ctx context.Context
	// peak is the most memory that was seen, in bytes.
	peak atomic.Int64
}

// prepare returns a buildctl that start starts.
func prepare(tb testing.TB, d *harness.Daemon, args ...string) *client {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), clientTimeout)
	c := &client{daemon: d, cmd: d.Command(ctx, args...), stderr: newOutput(), done: make(chan struct{}), ctx: ctx}
	c.cmd.Stderr = c.stderr
	tb.Cleanup(func() {
		cancel()
		if c.cmd.Process != nil {
			<-c.done
		}
	})
	return c
}

// start starts the client and returns at once. One that is still there when the test ends is
// killed.
func (c *client) start(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, c.cmd.Start())
	go c.watchMemory()
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // the state has the exit code
	}()
}

// watchMemory looks at the process's own account of its peak until it ends. That of its parent,
// wait4's, begins with what the parent had when it made the process.
func (c *client) watchMemory() {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
			if peak, ok := statusValue(c.cmd.Process.Pid, "VmHWM"); ok {
				c.peak.Store(peak)
			}
		}
	}
}

// launch starts a buildctl.
func launch(tb testing.TB, d *harness.Daemon, args ...string) *client {
	tb.Helper()
	c := prepare(tb, d, args...)
	c.start(tb)
	return c
}

// launchBuild starts a build of the Dockerfile in dir.
func launchBuild(tb testing.TB, d *harness.Daemon, dir string, more ...string) *client {
	tb.Helper()
	return launch(tb, d, harness.DockerfileArgs(dir, more...)...)
}

// wait returns how the client ended; one that hangs fails the test, and the daemon's goroutines are
// in its log.
func (c *client) wait(tb testing.TB) harness.Result {
	tb.Helper()
	<-c.done
	if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
		c.daemon.Signal(tb, syscall.SIGQUIT)
		<-c.daemon.Done()
		tb.Fatalf("buildctl %s hung for %v\n%s", strings.Join(c.cmd.Args[1:], " "), clientTimeout, c.stderr)
	}
	return harness.Result{Stderr: c.stderr.String(), Code: c.cmd.ProcessState.ExitCode()}
}

// waitWithin is wait for a client that has to end soon.
func (c *client) waitWithin(tb testing.TB, limit time.Duration) harness.Result {
	tb.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		tb.Fatalf("buildctl %s did not end within %v\n%s", strings.Join(c.cmd.Args[1:], " "), limit, c.stderr)
	}
	return c.wait(tb)
}

// await returns when the client has printed a text.
func (c *client) await(tb testing.TB, text string) {
	tb.Helper()
	for {
		printed, more := c.stderr.snapshot()
		if strings.Contains(printed, text) {
			return
		}
		select {
		case <-more:
		case <-c.done:
			if printed, _ := c.stderr.snapshot(); !strings.Contains(printed, text) {
				tb.Fatalf("buildctl ended and never printed %q:\n%s", text, printed)
			}
			return
		}
	}
}

// signal sends a signal; the client may have ended already.
func (c *client) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Fatal(err)
	}
}

// peakMemory returns the most memory that the client was seen to have, in bytes.
func (c *client) peakMemory() int64 { return c.peak.Load() }

// output keeps what is written to it and wakes those who wait for more.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

// snapshot returns what there is, and a channel that is closed when there is more.
func (o *output) snapshot() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

func (o *output) String() string {
	text, _ := o.snapshot()
	return text
}

// eventually calls check until it has nothing to object to, and fails the test when that takes
// longer than limit.
func eventually(tb testing.TB, limit time.Duration, check func() error) {
	tb.Helper()
	timer, ticker := time.NewTimer(limit), time.NewTicker(50*time.Millisecond)
	defer timer.Stop()
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-timer.C:
			tb.Fatalf("still after %v: %v", limit, err)
		}
	}
}

// after waits for a moment that a test picked at random.
func after(tb testing.TB, d time.Duration) {
	tb.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-tb.Context().Done():
	}
}

// spareGoroutines is what a daemon may have more than after its first build: two for each idle
// connection to a registry. A leak in each of many builds is more.
const spareGoroutines = 24

// requireGoroutines fails the test unless the daemon soon has no more goroutines than it had; the
// daemon's log then says which.
func requireGoroutines(tb testing.TB, d *harness.Daemon, before int, limit time.Duration) {
	tb.Helper()
	ok := false
	defer func() {
		if !ok {
			d.Signal(tb, syscall.SIGQUIT)
			<-d.Done()
		}
	}()
	eventually(tb, limit, func() error {
		if n := d.Goroutines(tb); n > before+spareGoroutines {
			return fmt.Errorf("the daemon has %d goroutines, it had %d", n, before)
		}
		return nil
	})
	ok = true
}

// requireAlive fails the test unless the daemon answers and builds.
func requireAlive(tb testing.TB, d *harness.Daemon) {
	tb.Helper()
	d.MustBuildctl(tb, "debug", "info")
	d.Build(tb, dockerfile(tb, "FROM scratch", "COPY Dockerfile /"))
}

// tmpfs mounts a file system in memory, for the time of the test. Its path is short enough for
// sockets.
func tmpfs(tb testing.TB, size string) string {
	tb.Helper()
	return mounted(tb, func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size) })
}

// mounted makes a folder, has something mounted there by mount, and undoes both when the test ends.
func mounted(tb testing.TB, mount func(dir string) error) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "e2e-") //nolint:usetesting // the path of a socket may have 107 bytes only, and the name of a test is long
	require.NoError(tb, err)
	tb.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			tb.Errorf("a mount point is kept: %v", err)
		}
	})
	require.NoError(tb, mount(dir))
	tb.Cleanup(func() {
		// What a client of the test still has open goes when the client does.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// peakMemory returns the most memory that a running process had since resetPeak, in bytes.
func peakMemory(tb testing.TB, pid int) int64 { return memory(tb, pid, "VmHWM") }

// memory returns a value of a process's status in bytes.
func memory(tb testing.TB, pid int, key string) int64 {
	tb.Helper()
	value, ok := statusValue(pid, key)
	require.True(tb, ok, "process %d has no %s", pid, key)
	return value
}

// statusValue returns a value of a process's status in bytes; false if there is no such process.
func statusValue(pid int, key string) (int64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, key+":"); ok {
			var kilobytes int64
			_, err := fmt.Sscanf(text, "%d kB", &kilobytes)
			return kilobytes << 10, err == nil
		}
	}
	return 0, false
}

// resetPeak makes peakMemory forget the past.
func resetPeak(tb testing.TB, pid int) {
	tb.Helper()
	require.NoError(tb, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
}

// command runs a program that has to succeed and returns what it printed.
func command(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), name, args...).CombinedOutput()
	require.NoError(tb, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out)
}
