// Package peer serves gRPC to one peer, a program or a client, on a server of its own: so that what is on
// its way between the two is known to be the peer's, and is bounded. What is served is not known here.
package peer

import (
	"net"
	"sync"

	"google.golang.org/grpc"
)

// Serve serves conn until it is closed by either side, calling closed then. Calls may last longer.
func Serve(s *grpc.Server, conn net.Conn, closed func()) {
	l := &listener{done: make(chan struct{}), addr: conn.LocalAddr()}
	l.conn = &hookedConn{Conn: conn, closed: sync.OnceFunc(func() {
		closed()
		l.end()
	})}
	_ = s.Serve(l)     // it fails because the one connection has ended
	_ = l.conn.Close() // unless the server was stopped before
}

// listener hands out the one connection and ends with it.
type listener struct {
	conn net.Conn
	addr net.Addr
	take sync.Once
	stop sync.Once
	done chan struct{}
}

func (l *listener) Accept() (conn net.Conn, err error) {
	l.take.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *listener) Close() error {
	l.end()
	return nil
}

func (l *listener) end() { l.stop.Do(func() { close(l.done) }) }

func (l *listener) Addr() net.Addr { return l.addr }

// hookedConn tells when it is closed.
type hookedConn struct {
	net.Conn
	closed func()
}

func (c *hookedConn) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}
