package session

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
)

// ByteStream is either side of Control.Session.
type ByteStream interface {
	Context() context.Context
	Send(*controlpb.BytesMessage) error
	Recv() (*controlpb.BytesMessage, error)
}

// maxChunk bounds the data of one message, well below what any peer accepts.
const maxChunk = 1 << 20

// StreamConn is a network connection made of messages. One goroutine may read and another write.
// Deadlines are accepted and ignored.
type StreamConn struct {
	stream ByteStream
	cancel func()

	in   chan []byte
	end  chan struct{} // closed when Recv has failed; err is set before
	err  error
	rest []byte

	closeOnce sync.Once
	closed    chan struct{}
	sending   sync.Mutex // Send and CloseSend must not run at the same time
}

// NewStreamConn returns the connection in stream. It receives from the stream until that fails,
// so the stream's context must end some time. Close unblocks Read at once and then calls cancel,
// which should end the stream's context and by that unblock Write; on the server's side, where
// only the return of the handler does so, cancel is nil.
func NewStreamConn(stream ByteStream, cancel func()) *StreamConn {
	c := &StreamConn{
		stream: stream,
		cancel: cancel,
		in:     make(chan []byte),
		end:    make(chan struct{}),
		closed: make(chan struct{}),
	}
	go c.receive()
	return c
}

func (c *StreamConn) receive() {
	defer close(c.end)
	for {
		m, err := c.stream.Recv()
		if err != nil {
			c.err = status.FromGRPC(err)
			return
		}
		if len(m.GetData()) == 0 {
			continue
		}
		select {
		case c.in <- m.GetData():
		case <-c.closed: // on to the end of the stream
		}
	}
}

func (c *StreamConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.rest) == 0 {
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		default:
		}
		select {
		case c.rest = <-c.in:
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.end:
			return 0, c.err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *StreamConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		select {
		case <-c.closed:
			return n, net.ErrClosed
		default:
		}
		chunk := p[:min(len(p), maxChunk)]
		if err := c.send(chunk); err != nil {
			if err == io.EOF {
				err = io.ErrClosedPipe // the reason is what Read returns
			}
			return n, err
		}
		n += len(chunk)
		p = p[len(chunk):]
	}
	return n, nil
}

func (c *StreamConn) send(data []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.stream.Send(&controlpb.BytesMessage{Data: data})
}

// Close ends the connection. It may be called more than once and from any goroutine.
func (c *StreamConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		// While a write waits for the peer, only cancel can end it.
		if s, ok := c.stream.(interface{ CloseSend() error }); ok && c.sending.TryLock() {
			_ = s.CloseSend()
			c.sending.Unlock()
		}
		if c.cancel != nil {
			c.cancel()
		}
	})
	return nil
}

type streamAddr struct{}

func (streamAddr) Network() string { return "session" }
func (streamAddr) String() string  { return "localhost" }

// LocalAddr returns a fixed name.
func (c *StreamConn) LocalAddr() net.Addr { return streamAddr{} }

// RemoteAddr returns a fixed name.
func (c *StreamConn) RemoteAddr() net.Addr { return streamAddr{} }

// SetDeadline does nothing.
func (c *StreamConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *StreamConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *StreamConn) SetWriteDeadline(time.Time) error { return nil }
