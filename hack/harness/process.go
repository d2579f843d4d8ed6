package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 30 * time.Second

// process is a running server and what it prints.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *logBuffer
	// done is closed when the process has ended; err is then how.
	done chan struct{}
	err  error
}

// startProcess starts cmd in a process group of its own and collects its output in log.
func startProcess(name string, cmd *exec.Cmd, log *logBuffer) (*process, error) {
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	// A child of the process may hold the pipe of its output open; don't wait for that one.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end and waits; one that does not end in time is made to print its
// goroutines, then killed. It returns an error unless the process ended by itself with code 0.
func (p *process) stop() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.dump()
		p.kill()
		return fmt.Errorf("%s still ran %v after SIGTERM", p.name, stopGrace)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// dump makes a Go program print its goroutines and end.
func (p *process) dump() {
	if p.signal(syscall.SIGQUIT) != nil {
		return
	}
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}

// kill ends the process without warning and waits until it is gone. What it started stays.
func (p *process) kill() {
	if p.signal(syscall.SIGKILL) == nil {
		<-p.done
	}
}

// signal sends a signal; it is no error that the process has ended already.
func (p *process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// logBuffer keeps what is written to it and wakes those who wait for more.
type logBuffer struct {
	mu      sync.Mutex
	data    bytes.Buffer
	changed chan struct{}
}

func newLogBuffer() *logBuffer { return &logBuffer{changed: make(chan struct{})} }

// Write never fails.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data.Write(p)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// snapshot returns what was written so far, and a channel that is closed when there is more.
func (l *logBuffer) snapshot() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String(), l.changed
}

// String returns what was written so far.
func (l *logBuffer) String() string {
	text, _ := l.snapshot()
	return text
}
