package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// errStalled is the cause with which a silent transfer is broken off.
var errStalled = errors.New("registry sends no data")

// leastBytes must come within the time that a body may stay silent.
const leastBytes = 1 << 10

// reader reads a blob to its end through as many connections as that takes: one that breaks,
// ends early or falls silent is replaced from the offset reached. It gives up a host after a
// number of connections in a row that brought next to nothing.
type reader struct {
	name  string
	size  int64
	stall time.Duration
	// open starts a transfer from an offset; the transfer ends with the context.
	open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// next, if not nil, is told why a host is given up, and says whether open now asks another.
	next func(error) bool
	// auth, if not nil, returns the authorizer of the host that open asks.
	auth func() *authorizer
	// tries is how many connections a host has; attempts if nil.
	tries func() int

	offset   int64
	failures int
	errs     hostErrors
	// waited is for how long and got how many bytes of late: the silence that is left.
	waited time.Duration
	got    int
	body   io.ReadCloser
	timer  *time.Timer
	// The functions below are bound to the context of the whole transfer. connect makes a
	// connection, broken says why the current one was broken off by us, nil if it was not.
	connect func() error
	broken  func() error
	cancel  func(error)
	wait    func(time.Duration) error
	// ended says why the transfer as a whole has ended, nil if it has not.
	ended func() error
}

// endTime is how long a connection may stay open after the last byte.
const endTime = 5 * time.Second

// start makes the first connection.
func (r *reader) start(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	r.cancel = cancel
	drop := func(error) {}
	r.connect = func() error {
		drop(nil)
		var conn context.Context
		conn, drop = context.WithCancelCause(ctx)
		stop := drop
		r.broken = func() error { return context.Cause(conn) }
		r.timer = time.AfterFunc(r.stall, func() { stop(errStalled) })
		body, err := r.open(conn, r.offset)
		if err != nil {
			r.timer.Stop()
			return err
		}
		r.body = body
		return nil
	}
	r.ended = func() error { return context.Cause(ctx) }
	r.wait = func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := r.connect(); err != nil {
		cancel(nil)
		return redact(err)
	}
	return nil
}

// Read fills p from the current connection.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.offset == r.size {
			return 0, r.checkEnd()
		}
		if r.body == nil {
			return 0, fmt.Errorf("%s: %w", r.name, io.ErrClosedPipe)
		}
		if left := r.size - r.offset; int64(len(p)) > left {
			p = p[:left]
		}
		n, err := r.readSome(p)
		r.offset += int64(n)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if err := r.resume(err); err != nil {
			return 0, err
		}
	}
}

// readSome reads from the current connection, which is broken off if it brings too little.
func (r *reader) readSome(p []byte) (int, error) {
	start := time.Now()
	r.timer.Reset(max(r.stall-r.waited, time.Millisecond))
	n, err := r.body.Read(p)
	r.timer.Stop()
	r.waited += time.Since(start)
	if r.got += n; r.got >= leastBytes {
		r.waited, r.got, r.failures = 0, 0, 0
	}
	return n, err
}

// checkEnd says whether the body ends where it should. That it is followed by nothing, rather
// than an end, is good enough.
func (r *reader) checkEnd() error {
	if r.body == nil {
		return io.EOF
	}
	var probe [1]byte
	r.timer.Reset(endTime)
	n, err := r.body.Read(probe[:])
	r.timer.Stop()
	_ = r.body.Close()
	r.body = nil
	if n > 0 || errdefs.IsFailedPrecondition(err) {
		return &SizeError{Object: r.name, Size: r.size + 1, Max: r.size}
	}
	return io.EOF
}

// resume replaces a connection that ended with err, or returns why it cannot.
func (r *reader) resume(err error) error {
	_ = r.body.Close()
	r.body = nil
	if err := r.ended(); err != nil {
		return err // no fault of the host
	}
	switch cause := r.broken(); {
	case cause != nil:
		err = cause
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	err = unwrapOpen(err)
	r.waited, r.got = 0, 0
	if r.resumable(err) {
		if r.failures++; r.failures < r.patience() {
			return r.reconnect(firstWait << (r.failures - 1))
		}
		err = fmt.Errorf("%s: transfer broken at %d of %d bytes: %w", r.name, r.offset, r.size, err)
	}
	if r.auth != nil {
		if r.auth().again(err) {
			return r.reconnect(0)
		}
		err = r.auth().blame(err)
	}
	r.errs.add(err)
	if r.next == nil || !r.next(err) {
		return redact(r.errs.err())
	}
	r.failures = 0
	return r.reconnect(0)
}

func (r *reader) patience() int {
	if r.tries == nil {
		return attempts
	}
	return r.tries()
}

// reconnect makes another connection after a while.
func (r *reader) reconnect(after time.Duration) error {
	if err := r.wait(after); err != nil {
		return err
	}
	return redact(r.connect())
}

// resumable reports whether a transfer can go on after err. Answers of the registry were
// repeated already by the transport as often as makes sense.
func (r *reader) resumable(err error) bool {
	var status *StatusError
	var size *SizeError
	switch {
	case errors.As(err, &status), errors.As(err, &size), IsDenied(err), errdefs.IsNotFound(err):
		return false
	}
	return errors.Is(err, errStalled) || passing(err)
}

// unwrapOpen removes what containerd's reader puts in front of errors of requests.
func unwrapOpen(err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "httpReadSeeker: failed open") {
		return inner
	}
	return err
}

// Close ends the transfer.
func (r *reader) Close() error {
	r.timer.Stop()
	r.cancel(nil)
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

// releaseCloser runs release once, with the first Close.
type releaseCloser struct {
	io.ReadCloser
	once    sync.Once
	release func()
}

func (c *releaseCloser) Close() error {
	err := c.ReadCloser.Close()
	c.once.Do(c.release)
	return err
}

// memo computes a value until it succeeds once.
type memo[T any] struct {
	mu   sync.Mutex
	done bool
	v    T
}

func (m *memo[T]) get(compute func() (T, error)) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return m.v, nil
	}
	v, err := compute()
	if err == nil {
		m.v, m.done = v, true
	}
	return v, err
}
