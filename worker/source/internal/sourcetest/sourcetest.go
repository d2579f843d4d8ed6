// Package sourcetest has what the tests of several sources need: clients with a session. Nothing but
// tests imports it.
package sourcetest

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/session"
)

// Client runs a session that offers services, over a real socket, until the test ends. It returns
// the session's id.
func Client(t testing.TB, m *session.Manager, services ...session.Attachable) string {
	t.Helper()
	s, err := session.New("")
	require.NoError(t, err)
	for _, svc := range services {
		s.Allow(svc)
	}
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer lis.Close()
	handled, ran := make(chan error, 1), make(chan error, 1)
	dial := func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		client, err := net.Dial("unix", lis.Addr().String())
		if err != nil {
			return nil, err
		}
		daemon, err := lis.Accept()
		if err != nil {
			return nil, err
		}
		go func() { handled <- m.HandleConn(context.Background(), daemon, meta) }()
		return client, nil
	}
	go func() { ran <- s.Run(context.Background(), dial) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-ran
		<-handled
	})
	_, err = m.Get(t.Context(), s.ID())
	require.NoError(t, err)
	return s.ID()
}
