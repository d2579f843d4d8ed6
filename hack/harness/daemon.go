package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// startTimeout is how long a daemon may take until it answers.
const startTimeout = 30 * time.Second

// DaemonOptions say what kind of daemon a test wants. The zero value is a daemon with default
// settings that can pull from nowhere.
type DaemonOptions struct {
	// Registry is where docker.io images come from: "busybox" is library/busybox there. May be nil.
	Registry *Registry
	// Config is TOML that is laid over the harness's own configuration, key by key.
	Config string
	// Args are more arguments for buildkitd.
	Args []string
	// Env are more variables, as KEY=value, for the daemon.
	Env []string
	// Dir is the folder that the state is made in; empty means the usual one for temporary files.
	// The daemon's socket is there too, so keep it short.
	Dir string
	// Debug makes Goroutines work.
	Debug bool
	// Sockets are listeners that the daemon is handed at each start, as a service manager does: the
	// address fd:// stands for the first. The test closes them.
	Sockets []*os.File
	// UserNamespace makes the daemon root of a user namespace only, with 65536 ids, as one that an
	// unprivileged user starts.
	UserNamespace bool
}

// Daemon is a buildkitd on state of its own.
type Daemon struct {
	// Addr is what clients pass as --addr; the harness's own clients have it in BUILDKIT_HOST.
	Addr string
	// Root is the daemon's --root.
	Root string
	// Home is the home folder of the daemon and of its clients; it is empty at first.
	Home string

	dir     string
	bin     string
	marker  string
	options DaemonOptions
	log     *logBuffer
	process *process
	// stopped is true between Stop or Kill and the next Start; killed, once Kill was called.
	stopped, killed bool
}

// StartDaemon starts a daemon and returns when it answers. At the end of the test it is stopped,
// checked for leaks, and its state deleted; a failed test gets its log.
func StartDaemon(tb testing.TB, options DaemonOptions) *Daemon {
	tb.Helper()
	bin := Binaries(tb)
	dir, err := os.MkdirTemp(options.Dir, "buildkit-") //nolint:usetesting // the path of a socket may have 107 bytes only, and the name of a test is long
	if err != nil {
		tb.Fatal(err)
	}
	d := &Daemon{
		Addr:    "unix://" + filepath.Join(dir, "d.sock"),
		Root:    filepath.Join(dir, "root"),
		Home:    filepath.Join(dir, "home"),
		dir:     dir,
		bin:     bin,
		marker:  filepath.Base(dir),
		options: options,
		log:     newLogBuffer(),
		stopped: true,
	}
	tb.Cleanup(func() { d.end(tb) })
	for _, sub := range []string{d.Home, d.tempDir()} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	config, err := d.config()
	if err != nil {
		tb.Fatalf("configuration of the daemon: %v", err)
	}
	if err := os.WriteFile(d.configFile(), config, 0o600); err != nil {
		tb.Fatal(err)
	}
	d.Start(tb)
	return d
}

// end is what happens to a daemon when its test ends.
func (d *Daemon) end(tb testing.TB) {
	tb.Helper()
	if !d.stopped {
		d.Stop(tb)
	}
	leaks := d.leaks()
	for _, leak := range leaks {
		tb.Errorf("the daemon left behind: %s", leak)
	}
	if tb.Failed() {
		tb.Logf("log of the daemon:\n%s", tail(d.log.String(), 64<<10))
	}
	d.cleanUp(tb)
}

// Start starts the daemon again on the state that it had; for use after Stop or Kill.
func (d *Daemon) Start(tb testing.TB) {
	tb.Helper()
	args := append([]string{
		"--root=" + d.Root,
		"--addr=" + d.Addr,
		"--config=" + d.configFile(),
		"--otel-socket-path=" + filepath.Join(d.dir, "otel.sock"),
	}, d.options.Args...)
	if d.options.Debug {
		args = append(args, "--debugaddr=unix://"+d.debugSocket())
	}
	program := filepath.Join(d.bin, "buildkitd")
	if d.options.UserNamespace {
		program = d.programOfUser(tb)
	}
	cmd := exec.Command(program, args...)
	if d.options.UserNamespace {
		cmd.SysProcAttr = userNamespace()
	}
	cmd.Env = append(d.environment(), d.options.Env...)
	if len(d.options.Sockets) > 0 {
		activate(cmd, d.options.Sockets)
	}
	p, err := startProcess("buildkitd", cmd, d.log)
	if err != nil {
		tb.Fatal(err)
	}
	d.process, d.stopped = p, false
	if err := d.awaitHealth(tb.Context()); err != nil {
		tb.Fatalf("buildkitd does not answer: %v\n%s", err, d.log)
	}
}

// activate has a command started with sockets as systemd starts one. Only the process itself knows
// the id that has to be in its environment, hence the shell.
func activate(cmd *exec.Cmd, sockets []*os.File) {
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	cmd.ExtraFiles = sockets
}

// Stop ends the daemon in the orderly way and fails the test unless it ends well and in time.
func (d *Daemon) Stop(tb testing.TB) {
	tb.Helper()
	d.stopped = true
	if err := d.process.stop(); err != nil {
		tb.Errorf("stop the daemon: %v", err)
	}
}

// Kill ends the daemon as a crash does. Containers it was running stay, as after a real crash; the
// next Start has to cope with them.
func (d *Daemon) Kill(tb testing.TB) {
	tb.Helper()
	d.stopped, d.killed = true, true
	d.process.kill()
}

// Restart stops and starts the daemon.
func (d *Daemon) Restart(tb testing.TB) {
	tb.Helper()
	d.Stop(tb)
	d.Start(tb)
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(tb testing.TB, s os.Signal) {
	tb.Helper()
	if err := d.process.signal(s); err != nil {
		tb.Fatal(err)
	}
}

// Done is closed when the running daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.process.done }

// Pid returns the id of the running daemon's process.
func (d *Daemon) Pid() int { return d.process.cmd.Process.Pid }

// Logs returns all that the daemon printed, over its restarts.
func (d *Daemon) Logs() string { return d.log.String() }

// awaitHealth returns when the health service of the daemon says that it serves.
func (d *Daemon) awaitHealth(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case <-d.process.done:
			fail(fmt.Errorf("it ended: %w", d.process.err))
		case <-ctx.Done():
		}
	}()
	conn, err := grpc.NewClient(d.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{
		MinConnectTimeout: time.Second,
		Backoff:           quick,
	}))
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%w (%w)", err, cause)
		}
		return err
	}
	if response.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("health is %v", response.Status)
	}
	return nil
}

// environment returns the variables of the daemon. The marker tells its children from others.
func (d *Daemon) environment() []string {
	return []string{
		"PATH=" + d.bin + ":" + os.Getenv("PATH"),
		"HOME=" + d.Home,
		"TMPDIR=" + d.tempDir(),
		"TZ=UTC",
		"LANG=C.UTF-8",
		markerVariable + "=" + d.marker,
	}
}

func (d *Daemon) clientEnv() []string {
	return []string{
		"PATH=" + d.bin + ":" + os.Getenv("PATH"),
		"HOME=" + d.Home,
		"TMPDIR=" + os.TempDir(),
		"TZ=UTC",
		"LANG=C.UTF-8",
		"TERM=xterm-256color",
		"BUILDKIT_HOST=" + d.Addr,
	}
}

func (d *Daemon) configFile() string  { return filepath.Join(d.dir, "buildkitd.toml") }
func (d *Daemon) debugSocket() string { return filepath.Join(d.dir, "debug.sock") }
func (d *Daemon) tempDir() string     { return filepath.Join(d.dir, "tmp") }

// tail returns the last bytes of text, from the beginning of a line.
func tail(text string, size int) string {
	if len(text) <= size {
		return text
	}
	text = text[len(text)-size:]
	_, rest, _ := strings.Cut(text, "\n")
	return "...\n" + rest
}
