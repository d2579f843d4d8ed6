package runc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker"
)

// killTimeout is how long a killed process may take to go before the runtime that waits for it is
// killed itself.
const killTimeout = 10 * time.Second

// process is a command of the OCI runtime that stays in the foreground for a process of a container.
type process struct {
	command func(options ...string) *exec.Cmd
	// dir is where the runtime writes the pid file when the process runs.
	dir     string
	request worker.Process
	console bool
	// onStart, which may be nil, is called once with the process's pid when it runs.
	onStart func(pid int)
	// onEnd, which may be nil, is called when the command has ended, before the output has. ran
	// tells that the process ended by itself.
	onEnd func(ran bool)
}

// run starts the command and waits for its end and that of its output. It returns the exit code, -1
// if there is none; if ctx ends the process is killed and ctx's cause returned.
func (p *process) run(ctx context.Context) (code int, err error) {
	streams, err := openStdio(p.request, p.console)
	if err != nil {
		return -1, err
	}
	// Last of all: only then nobody writes any more.
	defer streams.close()
	cmd := p.command(streams.options()...)
	streams.attach(cmd)
	pids, err := watchPidFile(p.dir, pidFile)
	if err != nil {
		streams.started()
		return -1, err
	}
	defer pids.close()
	err = cmd.Start()
	streams.started()
	if err != nil {
		return -1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s := &supervisor{process: p, cmd: cmd, streams: streams, pids: pids, ended: ended}
	waitErr := s.wait(ctx)
	streams.ended()
	cancelled := context.Cause(ctx)
	ran := s.init != nil && !s.killed
	if p.onEnd != nil {
		p.onEnd(ran)
	}
	if s.killed {
		return -1, cancelled
	}
	return exitCode(cmd, waitErr)
}

// supervisor passes signals and sizes to a process until it ends.
type supervisor struct {
	*process
	cmd     *exec.Cmd
	streams *stdio
	pids    *pidWatch
	ended   chan error
	init    *os.Process // nil until it runs
	killed  bool
}

func (s *supervisor) wait(ctx context.Context) error {
	done := ctx.Done()
	var giveUp <-chan time.Time
	var early []syscall.Signal // from before there was a process
	resize, signals := s.request.Resize, s.request.Signal
	for {
		select {
		case err := <-s.ended:
			s.lastPid()
			return err
		case pid, ok := <-s.pids.pid:
			if !ok {
				s.pids.pid = nil
				continue
			}
			s.running(pid)
			for _, sig := range early {
				_ = s.init.Signal(sig)
			}
			if s.killed {
				_ = s.init.Kill()
			}
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			if s.streams.resize(size) == nil {
				_ = s.cmd.Process.Signal(unix.SIGWINCH)
			}
		case sig, ok := <-signals:
			switch {
			case !ok:
				signals = nil
			case s.init == nil:
				early = append(early, sig)
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
			// The runtime hangs; deletion by force removes what it leaves.
			_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
		}
	}
}

// running takes note of the process. Its handle is a pidfd: it never means another process.
func (s *supervisor) running(pid int) {
	if s.init != nil {
		return
	}
	s.init, _ = os.FindProcess(pid) // never fails on unix
	if s.onStart != nil {
		s.onStart(pid)
	}
}

// lastPid looks for the process of a command that ended before its pid was seen.
func (s *supervisor) lastPid() {
	if s.init == nil {
		if pid, ok := readPid(filepath.Join(s.dir, pidFile)); ok {
			s.running(pid)
		}
	}
}

func readPid(file string) (int, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	return pid, err == nil && pid > 0
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
		if pid, ok := readPid(file); ok {
			w.pid <- pid
			return
		}
	}
}

func (w *pidWatch) close() { w.f.Close() }
