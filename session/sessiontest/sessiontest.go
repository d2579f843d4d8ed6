// Package sessiontest connects the two halves of a session inside a test, for the tests of packages
// that offer a service or call one. Nothing but tests imports it.
package sessiontest

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/openbuildkit/buildkit/session"
)

// Connect runs a session that offers services, over a real socket, until the test ends. It
// returns the daemon's view of it.
func Connect(t testing.TB, services ...session.Attachable) (*session.Manager, *session.Caller) {
	t.Helper()
	m := session.NewManager()
	return m, Join(t, m, nil, services...)
}

// Join runs a session at a manager. If wrap is not nil, it may replace the client's end of the
// connection.
func Join(t testing.TB, m *session.Manager, wrap func(net.Conn) net.Conn, services ...session.Attachable) *session.Caller {
	t.Helper()
	s, err := session.New("")
	if err != nil {
		t.Fatal(err)
	}
	return Run(t, m, s, wrap, services...)
}

// Run is Join of a session that the test has made.
func Run(t testing.TB, m *session.Manager, s *session.Session, wrap func(net.Conn) net.Conn, services ...session.Attachable) *session.Caller {
	t.Helper()
	for _, svc := range services {
		s.Allow(svc)
	}
	handled, ran := make(chan error, 1), make(chan error, 1)
	dial := func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		client, daemon, err := socketPair(t)
		if err != nil {
			return nil, err
		}
		go func() { handled <- m.HandleConn(context.Background(), daemon, meta) }()
		if wrap != nil {
			client = wrap(client)
		}
		return client, nil
	}
	go func() { ran <- s.Run(context.Background(), dial) }()
	t.Cleanup(func() {
		s.Close()
		<-ran
		<-handled
	})
	c, err := m.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// socketPair returns two connected sockets.
func socketPair(t testing.TB) (a, b net.Conn, err error) {
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		return nil, nil, err
	}
	defer lis.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := lis.Accept()
		accepted <- c
	}()
	if a, err = net.Dial("unix", lis.Addr().String()); err != nil {
		return nil, nil, err
	}
	if b = <-accepted; b == nil {
		a.Close()
		return nil, nil, io.ErrUnexpectedEOF
	}
	return a, b, nil
}
