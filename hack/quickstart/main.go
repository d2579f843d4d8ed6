// Command quickstart shows a build from nothing: it starts the daemon of bin/ on state of its own,
// builds examples/hello twice with the client of bin/, runs what came out, checks that the second
// build came from the cache, and stops the daemon. The base image is made on the spot and served
// from memory; nothing outside this machine is asked.
//
// `make quickstart` runs it from the top of the source tree. It needs root, or sudo.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/openbuildkit/buildkit/hack/plain"
	"github.com/openbuildkit/buildkit/hack/testimage"
)

const example = "examples/hello"

func main() {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "quickstart: the daemon needs root:", becomeRoot())
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// becomeRoot starts this program again through sudo; it returns only when that fails.
func becomeRoot() error {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(sudo, []string{"sudo", self}, os.Environ())
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "buildkit-quickstart-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	say("serving a busybox image, made of this machine's busybox-static")
	mirror, closeMirror, err := serveBusybox(ctx)
	if err != nil {
		return err
	}
	defer closeMirror()

	say("starting buildkitd on %s", filepath.Join(dir, "root"))
	daemon, err := startDaemon(ctx, dir, mirror)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.stop()) }()

	out := filepath.Join(dir, "out")
	say("building %s", example)
	if _, err := daemon.build(ctx, out); err != nil {
		return err
	}
	say("running what was built")
	greet := exec.CommandContext(ctx, filepath.Join(out, "hello"))
	greet.Stdout, greet.Stderr = os.Stdout, os.Stderr
	if err := greet.Run(); err != nil {
		return fmt.Errorf("run the result: %w", err)
	}

	say("building it again")
	progress, err := daemon.build(ctx, out)
	if err != nil {
		return err
	}
	if ran := plain.Executed(progress); len(ran) > 0 {
		return fmt.Errorf("these steps ran again: %s", strings.Join(ran, "; "))
	}
	say("all %d steps came from the cache; stopping the daemon", len(plain.Cached(progress)))
	return nil
}

func say(format string, args ...any) {
	fmt.Printf("\n==> "+format+"\n", args...)
}

// serveBusybox serves library/busybox from memory and returns the address.
func serveBusybox(ctx context.Context) (host string, closeServer func(), err error) {
	image, err := testimage.Busybox(testimage.Host())
	if err != nil {
		return "", nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	go server.Serve(listener) //nolint:errcheck // it ends with Close, and says so
	host = listener.Addr().String()
	if err := testimage.Push(ctx, host+"/library/busybox:latest", image); err != nil {
		server.Close()
		return "", nil, err
	}
	return host, func() { server.Close() }, nil
}

// daemon is a running buildkitd.
type daemon struct {
	addr string
	log  string
	cmd  *exec.Cmd
	done chan error
}

// startDaemon starts buildkitd on state below dir, with mirror in the place of docker.io, and
// returns when it answers.
func startDaemon(ctx context.Context, dir, mirror string) (*daemon, error) {
	config := filepath.Join(dir, "buildkitd.toml")
	text := fmt.Sprintf("[registry.\"docker.io\"]\nmirrors = [%q]\n\n[registry.%q]\nhttp = true\n", mirror, mirror)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{
		addr: "unix://" + filepath.Join(dir, "buildkitd.sock"),
		log:  filepath.Join(dir, "buildkitd.log"),
		done: make(chan error, 1),
	}
	output, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	d.cmd = exec.Command("bin/buildkitd",
		"--root="+filepath.Join(dir, "root"),
		"--addr="+d.addr,
		"--config="+config,
		"--otel-socket-path="+filepath.Join(dir, "otel.sock"),
	)
	d.cmd.Stdout, d.cmd.Stderr = output, output
	// Ctrl-C is for this program, which then stops the daemon in the orderly way.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.done <- d.cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	wait := exec.CommandContext(ctx, "bin/buildctl", "--addr="+d.addr, "--wait", "debug", "workers")
	wait.Stdout, wait.Stderr = os.Stdout, os.Stderr
	if err := wait.Run(); err != nil {
		text, _ := os.ReadFile(d.log)
		return nil, errors.Join(fmt.Errorf("the daemon does not answer: %w\n%s", err, text), d.stop())
	}
	return d, nil
}

// build builds the example into the folder out, shows the progress and returns it.
func (d *daemon) build(ctx context.Context, out string) (progress string, err error) {
	var text bytes.Buffer
	cmd := exec.CommandContext(ctx, "bin/buildctl", "--addr="+d.addr, "build",
		"--progress=plain",
		"--frontend=dockerfile.v0",
		"--local=context="+example,
		"--local=dockerfile="+example,
		"--output=type=local,dest="+out,
	)
	cmd.Stdout, cmd.Stderr = os.Stdout, io.MultiWriter(os.Stderr, &text)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return text.String(), nil
}

// stop asks the daemon to end and waits for it.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case err := <-d.done:
		if err != nil {
			return fmt.Errorf("the daemon ended badly: %w", err)
		}
		return nil
	case <-timer.C:
		return errors.Join(errors.New("the daemon did not stop within 30 s"), d.cmd.Process.Kill(), <-d.done)
	}
}
