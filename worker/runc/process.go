package runc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker"
)

// killTimeout is how long the runtime may take to start a process that is not wanted any more, and the
// process to go when it was killed.
const killTimeout = 10 * time.Second

// process is a process of a container. The OCI runtime starts it with the streams that are to be its own
// and ends, whereupon it is a child of ours, see adoptOrphans.
type process struct {
	command func(options ...string) *exec.Cmd
	// stays is set if the command lasts as long as the process, see oci.
	stays bool
	// dir is where the runtime writes the pid file.
	dir     string
	request worker.Process
	// onStart, which may be nil, is called with the process's pid when it runs, or has run.
	onStart func(pid int)
	// onEnd, which may be nil, is called when the process has ended, before its output has. ran
	// tells that it ended by itself.
	onEnd func(ran bool)
}

// run starts the process and waits for its end and that of its output. It returns the exit code, that of
// the runtime if there never was a process; if ctx ends the process is killed and ctx's cause returned.
func (p *process) run(ctx context.Context) (code int, err error) {
	streams, err := openStdio(p.request)
	if err != nil {
		return -1, err
	}
	// Last of all: only then nobody writes any more.
	defer streams.close()
	cmd := p.command(streams.options()...)
	streams.attach(cmd)
	s := &supervisor{process: p, cmd: cmd, streams: streams, ended: make(chan end, 1)}
	if p.stays {
		pids, err := watchPidFile(p.dir, pidFile)
		if err != nil {
			streams.started()
			return -1, err
		}
		defer pids.close()
		s.pids = pids.pid
	}
	err = cmd.Start()
	streams.started()
	if err != nil {
		return -1, err
	}
	last := s.wait(ctx)
	streams.ended()
	cancelled := context.Cause(ctx)
	ran := s.init != nil && !s.killed
	if p.onEnd != nil {
		p.onEnd(ran)
	}
	if s.killed {
		return -1, cancelled
	}
	return last.code()
}

// end is how a command or a process has ended.
type end struct {
	state *os.ProcessState
	err   error
}

// code returns the exit code as a shell would tell it.
func (e end) code() (int, error) {
	var exit *exec.ExitError
	if e.err != nil && !errors.As(e.err, &exit) {
		return -1, e.err
	}
	if st, ok := e.state.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal()), nil
	}
	return e.state.ExitCode(), nil
}

// supervisor passes signals and sizes to a process until it ends.
type supervisor struct {
	*process
	cmd     *exec.Cmd
	streams *stdio
	// pids has the pid if the command stays.
	pids chan int
	// ended has the end of a process that its command has left.
	ended  chan end
	init   *os.Process // nil until it runs
	killed bool
	// early are signals from before there was a process.
	early []syscall.Signal
}

func (s *supervisor) wait(ctx context.Context) end {
	command := make(chan error, 1)
	go func() { command <- s.cmd.Wait() }()
	done := ctx.Done()
	var giveUp <-chan time.Time
	resize, signals := s.request.Resize, s.request.Signal
	for {
		select {
		case err := <-command:
			if err == nil || s.stays {
				err = errors.Join(err, s.commandEnded())
			}
			if err != nil || s.stays {
				return end{s.cmd.ProcessState, err}
			}
		case pid, ok := <-s.pids:
			if !ok {
				s.pids = nil
				continue
			}
			s.running(pid)
		case e := <-s.ended:
			return e
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			_ = s.streams.resize(size)
		case sig, ok := <-signals:
			switch {
			case !ok:
				signals = nil
			case s.init == nil:
				s.early = append(s.early, sig)
			default:
				_ = s.init.Signal(sig)
			}
		case <-done:
			done = nil
			s.killed = true
			timer := time.NewTimer(killTimeout)
			defer timer.Stop()
			giveUp = timer.C
			if s.init != nil {
				_ = s.init.Kill()
			}
		case <-giveUp:
			// Deletion by force removes what is left.
			_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
			if s.init != nil && !s.stays {
				s.streams.abandon()
				return end{err: errStuck}
			}
		}
	}
}

// errStuck is of processes that the kernel does not let go.
var errStuck = errors.New("the process does not end although it was killed")

// commandEnded looks for the process that a command has left, or that it saw end before its pid was known
// here.
func (s *supervisor) commandEnded() error {
	if s.init != nil {
		return nil
	}
	pid, err := readPid(filepath.Join(s.dir, pidFile))
	switch {
	case s.stays && err == nil:
		s.running(pid)
	case s.stays: // it had none, and says why
	case err != nil:
		return fmt.Errorf("process of the OCI runtime: %w", err)
	default:
		s.running(pid)
		go func() {
			state, err := s.init.Wait()
			s.ended <- end{state, err}
		}()
	}
	return nil
}

// running takes note of the process. Its handle is a pidfd: it never means another process.
func (s *supervisor) running(pid int) {
	s.init, _ = os.FindProcess(pid) // never fails on unix
	if s.onStart != nil {
		s.onStart(pid)
	}
	for _, sig := range s.early {
		_ = s.init.Signal(sig)
	}
	if s.killed {
		_ = s.init.Kill()
	}
}

func readPid(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err == nil && pid <= 0 {
		err = fmt.Errorf("pid %d", pid)
	}
	return pid, err
}

// pidWatch waits for a pid file.
type pidWatch struct {
	f   *os.File
	pid chan int
}

// watchPidFile watches dir, in which a runtime will write or move the file name. The pid comes once;
// the channel is closed afterwards, or when the watch is closed.
func watchPidFile(dir, name string) (*pidWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &pidWatch{f: os.NewFile(uintptr(fd), "inotify"), pid: make(chan int, 1)}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		return nil, errors.Join(err, w.f.Close())
	}
	go w.run(filepath.Join(dir, name))
	return w, nil
}

func (w *pidWatch) run(file string) {
	defer close(w.pid)
	buf := make([]byte, 4096)
	for {
		// Which file it is does not matter: there are few.
		if _, err := w.f.Read(buf); err != nil {
			return
		}
		if pid, err := readPid(file); err == nil {
			w.pid <- pid
			return
		}
	}
}

func (w *pidWatch) close() { w.f.Close() }
