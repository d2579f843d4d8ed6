//go:build linux

package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
)

const (
	// grace is how long git may take to remove its lock files when it is stopped.
	grace = 3 * time.Second
	// maxOutput bounds what is kept of the output of one command, in bytes.
	maxOutput = 4 << 20
	// maxComplaint bounds what an error repeats of it.
	maxComplaint = 4 << 10
)

// transports is what git may use to reach remotes and those of submodules.
const transports = "http:https:ssh:git"

// fromDaemon are the variables of the daemon's environment that git gets.
var fromDaemon = []string{
	"PATH",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
}

// command runs git in one environment.
type command struct {
	env []string
	// scope is shown what git says.
	scope event.Scope
	// stall is how long a remote may be silent.
	stall time.Duration
}

// with returns a command with more variables.
func (c command) with(env ...string) command {
	c.env = slices.Concat(c.env, env)
	return c
}

// runOpt says what becomes of the output of one run.
type runOpt struct {
	// show sends what git says of its progress to the log of the vertex.
	show bool
	// remote says that git talks to a remote, which must not fall silent.
	remote bool
	// dir is the working directory.
	dir string
	// stdout takes the output; nil returns it.
	stdout io.Writer
}

// CommandError is the failure of git.
type CommandError struct {
	// Verb is what git was to do.
	Verb string
	// Stderr is the end of what it said, without credentials.
	Stderr string
	Err    error
}

// Error tells what git said, in the form that clients know.
func (e *CommandError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("git %s: %v", e.Verb, e.Err)
	}
	return fmt.Sprintf("git stderr:\n%s\n: %v", e.Stderr, e.Err)
}

// Unwrap returns the failure of the process.
func (e *CommandError) Unwrap() error { return e.Err }

// run runs git and returns its output. When ctx ends git is stopped with all its children.
func (c command) run(ctx context.Context, opt runOpt, verb string, args ...string) ([]byte, error) {
	var out, said limited
	out.max, said.max = maxOutput, maxComplaint
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, "git", slices.Concat([]string{verb}, args)...)
	cmd.Env, cmd.Dir = c.env, opt.dir
	cmd.Stdout = &out
	if opt.stdout != nil {
		cmd.Stdout = opt.stdout
	}
	cmd.Stderr = &said
	if opt.show {
		log := newLineWriter(c.scope.Writer(event.Stderr), opt.dir)
		defer log.flush()
		cmd.Stderr = io.MultiWriter(&said, log)
	}
	// git dies with the daemon: two that write to one repository would spoil it. It is the first process
	// of a namespace of processes, so that what it has begun dies with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	var kill *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		if !catches(cmd.Process.Pid, unix.SIGTERM) {
			return unix.Kill(group, unix.SIGKILL) // the kernel keeps from a first process what it does not expect
		}
		kill = time.AfterFunc(grace, func() { _ = unix.Kill(group, unix.SIGKILL) })
		return unix.Kill(group, unix.SIGTERM)
	}
	cmd.WaitDelay = 2 * grace
	err := runBound(cmd, func() {
		if opt.remote {
			go watch(ctx, cmd.Process.Pid, c.stall, cancel)
		}
	})
	if kill != nil {
		kill.Stop()
		if cmd.Process != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	}
	cause := context.Cause(ctx)
	var stalled *StalledError
	if errors.As(cause, &stalled) {
		return nil, &CommandError{Verb: verb, Err: cause}
	}
	if cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, &CommandError{Verb: verb, Stderr: presentable(strings.TrimSpace(said.String()), opt.dir), Err: err}
	}
	if out.over {
		return nil, &CommandError{Verb: verb, Err: errors.New("too much output")}
	}
	return out.Bytes(), nil
}

// catches tells whether a process does something about a signal: git does if there is something to
// tidy up (proc_pid_status(5)).
func catches(pid int, sig unix.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), "\nSigCgt:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	return err == nil && mask>>(sig-1)&1 == 1
}

// umask makes files readable for everybody and writable for their owner.
const umask = 0o022

// runBound runs a command from a thread that lives as long: the kernel takes the death of a thread
// for that of the parent. The thread has a umask of its own, which git inherits, and ends with the
// command. It calls started once the command runs.
func runBound(cmd *exec.Cmd, started func()) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			ended <- fmt.Errorf("unshare the umask: %w", err)
			return
		}
		unix.Umask(umask)
		err := cmd.Start()
		if err == nil {
			started()
			err = cmd.Wait()
		}
		ended <- err
	}()
	return <-ended
}

// limited keeps the end of what is written to it.
type limited struct {
	bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if l.Len()+n > l.max {
		l.over = true
		p = p[max(0, n-l.max):]
		l.Next(max(0, l.Len()+len(p)-l.max))
	}
	_, err := l.Buffer.Write(p)
	return n, err
}
