//go:build !windows

package filesync

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// handle is an open file that one goroutine uses. An os.File would take more system calls, which
// is what small files cost.
type handle struct {
	fd   int
	path string
}

// openAt opens a file that lies in d under name for reading. It does not wait for the other end of
// a named pipe, and follows symbolic links below the root of d only.
func openAt(d *dirHandle, name string) (*handle, error) {
	h, err := openHandle(d, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil || !isLink(err) {
		return h, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &handle{fd: fd, path: name}, nil
}

// isLink tells whether something could not be opened because it is a symbolic link.
func isLink(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) }

// createAt makes a file in d for writing, which must not be there yet.
func createAt(d *dirHandle, name string, perm fs.FileMode) (*handle, error) {
	return openHandle(d, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint32(perm))
}

func openHandle(d *dirHandle, name string, flags int, perm uint32) (*handle, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.join(name), Err: err}
	}
	return &handle{fd: fd, path: d.join(name)}, nil
}

// retry calls fn until no signal disturbs it.
func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// maxIO bounds one system call; some systems refuse more.
const maxIO = 1 << 30

// Read is that of io.Reader.
func (h *handle) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = retry(func() (err error) {
		n, err = unix.Read(h.fd, p[:min(len(p), maxIO)])
		return err
	})
	switch {
	case err != nil:
		return 0, &fs.PathError{Op: "read", Path: h.path, Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write is that of io.Writer.
func (h *handle) Write(p []byte) (done int, err error) {
	for done < len(p) {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Write(h.fd, p[done:min(len(p), done+maxIO)])
			return err
		})
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, &fs.PathError{Op: "write", Path: h.path, Err: err}
		}
		done += n
	}
	return done, nil
}

// Close closes the file. A call that was interrupted has closed it too.
func (h *handle) Close() error {
	if err := unix.Close(h.fd); err != nil && !errors.Is(err, unix.EINTR) {
		return &fs.PathError{Op: "close", Path: h.path, Err: err}
	}
	return nil
}

// changed returns when the file has changed last, zero if that is not known.
func (h *handle) changed() time.Time {
	var sys unix.Stat_t
	if err := unix.Fstat(h.fd, &sys); err != nil {
		return time.Time{}
	}
	return time.Unix(0, unix.TimespecToNsec(sys.Ctim))
}
