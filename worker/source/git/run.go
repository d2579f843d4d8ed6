//go:build linux

package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/giturl"
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
	env   []string
	umask string
	// scope is shown what git says.
	scope event.Scope
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

// Error tells what git said.
func (e *CommandError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("git %s: %v", e.Verb, e.Err)
	}
	return fmt.Sprintf("git %s: %v: %s", e.Verb, e.Err, e.Stderr)
}

// Unwrap returns the failure of the process.
func (e *CommandError) Unwrap() error { return e.Err }

// run runs git and returns its output. When ctx ends git is stopped with all its children.
func (c command) run(ctx context.Context, opt runOpt, verb string, args ...string) ([]byte, error) {
	var out, said limited
	out.max, said.max = maxOutput, maxComplaint
	// The shell sets the mode of the files that git makes, which is a matter of the whole process.
	argv := slices.Concat([]string{"-c", `umask "$0" && exec git "$@"`, c.umask, verb}, args)
	cmd := exec.CommandContext(ctx, "/bin/sh", argv...)
	cmd.Env, cmd.Dir = c.env, opt.dir
	cmd.Stdout = &out
	if opt.stdout != nil {
		cmd.Stdout = opt.stdout
	}
	cmd.Stderr = &said
	if opt.show {
		log := &lineWriter{w: c.scope.Writer(event.Stderr)}
		defer log.flush()
		cmd.Stderr = io.MultiWriter(&said, log)
	}
	// git dies with the daemon: two that write to one repository would spoil it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var kill *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		kill = time.AfterFunc(grace, func() { _ = unix.Kill(group, unix.SIGKILL) })
		return unix.Kill(group, unix.SIGTERM)
	}
	cmd.WaitDelay = 2 * grace
	err := runBound(cmd)
	if kill != nil {
		kill.Stop()
		if cmd.Process != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, &CommandError{Verb: verb, Stderr: complaint(said.String(), opt.dir), Err: err}
	}
	if out.over {
		return nil, &CommandError{Verb: verb, Err: errors.New("too much output")}
	}
	return out.Bytes(), nil
}

// complaint is what git said, without credentials and without the folder that it worked in.
func complaint(said, dir string) string {
	if dir != "" {
		said = strings.ReplaceAll(said, dir+"/", "")
	}
	return giturl.Redact(strings.TrimSpace(said))
}

// runBound runs a command from a thread that lives as long: the kernel takes the death of a thread
// for that of the parent.
func runBound(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
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

// lineWriter passes whole lines on, without credentials. A line that is only drawn over by the
// next, as progress is, is left out.
type lineWriter struct {
	w    io.Writer
	rest []byte
}

// maxLine is where a line is cut, in bytes.
const maxLine = 16 << 10

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			if len(l.rest) > maxLine {
				l.flush()
			}
			return len(p), nil
		}
		l.line(l.rest[:i])
		l.rest = l.rest[i+1:]
	}
}

func (l *lineWriter) line(b []byte) {
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	_, _ = io.WriteString(l.w, giturl.Redact(string(b))+"\n")
}

func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		l.line(l.rest)
		l.rest = nil
	}
}
