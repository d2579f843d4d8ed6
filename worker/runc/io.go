package runc

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/containerd/console"
	gorunc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker"
)

// stdio connects the standard streams of a command with a process's reader and writers.
type stdio struct {
	in, out, err *os.File // the command's ends
	// outputs are copies to writers; they end when all who have the command's ends are gone.
	outputs sync.WaitGroup
	readers []io.Closer // of the outputs
	ours    []io.Closer

	// socket is where the runtime sends the container's terminal, nil for pipes.
	socket *gorunc.Socket
	mu     sync.Mutex
	tty    console.Console // nil until there is one
	size   *worker.WindowSize
}

// openStdio opens pipes, or a socket for a terminal, for p.
func openStdio(p worker.Process) (_ *stdio, err error) {
	s := &stdio{}
	defer func() {
		if err != nil {
			s.started()
			s.close()
		}
	}()
	if p.Tty {
		return s, s.receiveTTY(p)
	}
	if s.out, err = s.output(p.Stdout); err != nil {
		return nil, err
	}
	if s.err, err = s.output(p.Stderr); err != nil {
		return nil, err
	}
	if p.Stdin == nil {
		return s, s.noInput()
	}
	return s, s.input(p.Stdin)
}

// output returns a pipe that is copied to w, for as long as somebody writes to it even if w fails:
// a process never blocks on a log that nobody reads.
func (s *stdio) output(w io.Writer) (*os.File, error) {
	if w == nil {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	r, child, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// A process that prints much need not wait each time that the daemon is not there. The kernel may
	// not give so much to all: then the pipe is as large as it was.
	if raw, err := r.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	s.drain(w, r)
	return child, nil
}

const (
	// pipeSize is how much a process may be ahead of the daemon, in bytes.
	pipeSize = 256 << 10
	// copySize is how much of it is taken at once.
	copySize = 64 << 10
)

func (s *stdio) drain(w io.Writer, r io.ReadCloser) {
	s.readers = append(s.readers, r)
	s.outputs.Go(func() {
		defer r.Close()
		if _, err := io.CopyBuffer(onlyWriter{w}, onlyReader{r}, make([]byte, copySize)); err != nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
}

// onlyWriter and onlyReader have a copy made with its own buffer.
type onlyWriter struct{ io.Writer }

type onlyReader struct{ io.Reader }

// noInput has nothing to read. It is a pipe for all that: there are programs that do one thing if their
// input is a pipe or a file and another if it is a device, and steps have always had a pipe.
func (s *stdio) noInput() error {
	child, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.in = child
	return w.Close()
}

// input copies r to a pipe until either end is closed. A read that blocks is not waited for.
func (s *stdio) input(r io.Reader) error {
	child, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.in = child
	s.ours = append(s.ours, w)
	go func() {
		_, _ = io.Copy(w, r)
		w.Close()
	}()
	return nil
}

// copyTTY copies between the terminal and the process's streams.
func (s *stdio) copyTTY(p worker.Process) {
	out := p.Stdout
	if out == nil {
		out = io.Discard
	}
	// A terminal without users ends its reader with an error: that is the end of the output.
	s.outputs.Go(func() {
		if _, err := io.Copy(out, s.tty); err != nil && !errors.Is(err, unix.EIO) {
			_, _ = io.Copy(io.Discard, s.tty)
		}
	})
	if p.Stdin != nil {
		go func() { _, _ = io.Copy(s.tty, p.Stdin) }()
	}
}

// receiveTTY waits in the background for the container's terminal. What the runtime itself has to
// say goes where the terminal's output does.
func (s *stdio) receiveTTY(p worker.Process) (err error) {
	if s.socket, err = gorunc.NewTempConsoleSocket(); err != nil {
		return err
	}
	if s.out, err = s.output(p.Stdout); err != nil {
		return err
	}
	s.err = s.out
	s.outputs.Go(func() {
		master, err := s.socket.ReceiveMaster()
		if err != nil {
			return // the process has ended without one
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tty = master
		s.ours = append(s.ours, master)
		if s.size != nil {
			_ = master.Resize(winSize(*s.size))
		}
		s.copyTTY(p)
	})
	s.in, err = os.Open(os.DevNull)
	return err
}

// options returns what the command has to be told.
func (s *stdio) options() []string {
	if s.socket == nil {
		return nil
	}
	return []string{"--console-socket", s.socket.Path()}
}

// ended is called when the command has ended: no terminal comes any more.
func (s *stdio) ended() {
	if s.socket != nil {
		s.socket.Close()
	}
}

func (s *stdio) attach(cmd *exec.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.out, s.err
}

// started gives up the command's ends, which it has now, or never will.
func (s *stdio) started() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
	s.in, s.out, s.err = nil, nil, nil
}

// resize sets the size of the terminal, if there is one or will be.
func (s *stdio) resize(size worker.WindowSize) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = &size
	if s.tty == nil {
		return nil
	}
	return s.tty.Resize(winSize(size))
}

func winSize(s worker.WindowSize) console.WinSize {
	return console.WinSize{Height: uint16(s.Rows), Width: uint16(s.Cols)}
}

// abandon ends the output of a process that does not end.
func (s *stdio) abandon() {
	for _, r := range s.readers {
		r.Close()
	}
}

// close waits for the output to end and closes our ends.
func (s *stdio) close() {
	s.ended()
	s.outputs.Wait()
	for _, c := range s.ours {
		c.Close()
	}
}
