package blob

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/klauspost/compress/gzip"
)

// igzip is Intel's gzip (Debian package isal), which takes half of the CPU time of the library. It
// is used where it is on the PATH. unpigz, with more threads, takes more time than the library.
var igzip = sync.OnceValue(func() string {
	path, err := exec.LookPath("igzip")
	if err != nil {
		return ""
	}
	return path
})

// igzipMin is the least size of a stream, in bytes, that is worth a process.
const igzipMin = 512 << 10

// newGunzip returns the uncompressed form of a gzip stream of one or more members.
func newGunzip(r io.Reader) (io.ReadCloser, error) {
	if igzip() == "" {
		return gzip.NewReader(r)
	}
	br := bufio.NewReaderSize(r, igzipMin)
	if _, err := br.Peek(igzipMin); err != nil {
		return gzip.NewReader(br) // short; another error comes again
	}
	return startFilter(exec.Command(igzip(), "-d", "-c"), br)
}

// filter is the output of a process. It ends at the latest when it is closed.
type filter struct {
	in     *source
	out    io.Reader
	cmd    *exec.Cmd
	stderr bytes.Buffer
	wait   func() error
}

// source remembers why nothing more came from a reader.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func startFilter(cmd *exec.Cmd, in io.Reader) (*filter, error) {
	f := &filter{cmd: cmd, in: &source{Reader: in}}
	cmd.Stdin, cmd.Stderr = f.in, &limitedBuffer{&f.stderr}
	// Nothing of the daemon's; and an interrupt from the keyboard is not for it.
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if f.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	f.wait = sync.OnceValue(cmd.Wait)
	return f, nil
}

func (f *filter) Read(p []byte) (int, error) {
	n, err := f.out.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("decompress: %w", err)
	}
	if err := f.wait(); f.in.err != nil {
		return n, fmt.Errorf("decompress: %w", f.in.err)
	} else if err != nil {
		return n, fmt.Errorf("decompress: %w: %s", err, strings.TrimSpace(f.stderr.String()))
	}
	return n, io.EOF
}

// Close ends the process if it has not ended, and waits for it. No more is read of its input.
func (f *filter) Close() error {
	_ = f.cmd.Process.Kill() // unless it has ended
	_ = f.wait()             // Read reports how it ended, if anybody cares
	return nil
}

// limitedBuffer keeps the beginning of what a process says.
type limitedBuffer struct{ b *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	const most = 1 << 10
	l.b.Write(p[:min(len(p), max(0, most-l.b.Len()))])
	return len(p), nil
}
