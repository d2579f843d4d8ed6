package main

import (
	"io"
	"net"
	"sync"
)

// oneConn is a listener that hands out one connection and then waits until it is closed.
type oneConn struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
	init sync.Once
}

func (l *oneConn) closed() chan struct{} {
	l.init.Do(func() { l.done = make(chan struct{}) })
	return l.done
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c == nil {
		<-l.closed()
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *oneConn) Close() error {
	close(l.closed())
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// copyAll copies until one side ends and closes both, as a daemon does with the streams of a
// frontend.
func copyAll(dst io.WriteCloser, src io.ReadCloser) {
	_, _ = io.Copy(dst, src)
	_ = dst.Close()
	_ = src.Close()
}
