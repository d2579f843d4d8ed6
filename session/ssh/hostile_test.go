package ssh_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/session/ssh"
)

// service is what a client does with a connection.
type service func(stream grpc.ServerStream) error

func (s service) Register(srv *grpc.Server) {
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "moby.sshforward.v1.SSH", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "ForwardAgent", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error { return s(stream) },
	}}}, nil)
}

func TestAServiceThatFailsIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		service service
		want    string
	}{
		"with an error": {func(grpc.ServerStream) error { return errors.New("no card in the reader") }, "ssh agent default of the client: no card in the reader"},
		"with garbage": {func(s grpc.ServerStream) error {
			return s.SendMsg(&session.Frame{Data: []byte("\xff\xff\xff\xff\x0f garbage")})
		}, "the answer of the client to /moby.sshforward.v1.SSH/ForwardAgent is none: grpc: failed to unmarshal"},
		"with a huge message": {func(s grpc.ServerStream) error {
			return s.SendMsg(&sshpb.BytesMessage{Data: make([]byte, 2<<20)})
		}, "grpc: received message larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := sessiontest.Connect(t, tc.service)
			sock := forward(t, c, ssh.ForwardOpt{Mode: 0o600})
			_, err := io.ReadAll(dial(t, sock))
			require.NoError(t, err)
			for sock.Err() == nil {
				runtime.Gosched() // it is noted after the connection has been closed
			}
			require.ErrorContains(t, sock.Err(), tc.want)
			require.Equal(t, c.ID(), session.Faults(sock.Err())[0].ID)
		})
	}
	t.Run("but not once the step is done with it", func(t *testing.T) {
		asked := make(chan struct{})
		_, c := sessiontest.Connect(t, service(func(s grpc.ServerStream) error {
			var m sshpb.BytesMessage
			for s.RecvMsg(&m) == nil {
				continue
			}
			close(asked)
			return errors.New("broken pipe")
		}))
		sock := forward(t, c, ssh.ForwardOpt{Mode: 0o600})
		conn := dial(t, sock)
		require.NoError(t, conn.CloseWrite())
		<-asked
		_, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.NoError(t, sock.Close())
		require.NoError(t, sock.Err())
	})
}

// What a client sends that nobody reads stays with it, and nobody waits for a client that is silent.
func TestConnectionsOfHostileClientsEndWithTheStep(t *testing.T) {
	for name, s := range map[string]service{
		"that send without end": func(s grpc.ServerStream) error {
			m := &sshpb.BytesMessage{Data: bytes.Repeat([]byte("x"), 32<<10)}
			for {
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		},
		"that send empty messages without end": func(s grpc.ServerStream) error {
			for {
				if err := s.SendMsg(&sshpb.BytesMessage{}); err != nil {
					return err
				}
			}
		},
		"that are silent": func(s grpc.ServerStream) error { <-s.Context().Done(); return nil },
		"that take nothing": func(s grpc.ServerStream) error {
			if err := s.SendMsg(&sshpb.BytesMessage{Data: []byte("x")}); err != nil {
				return err
			}
			<-s.Context().Done()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := sessiontest.Connect(t, s)
			sock := forward(t, c, ssh.ForwardOpt{Mode: 0o600})
			for range 3 {
				conn := dial(t, sock)
				_, err := conn.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			require.NoError(t, sock.Close())
			require.NoError(t, sock.Err())
		})
	}
}

func TestAStepOpensOnlySoManyConnectionsAtATime(t *testing.T) {
	const limit, dialed = 32, 100
	var open, most, served atomic.Int32
	leave := make(chan struct{})
	_, c := sessiontest.Connect(t, service(func(s grpc.ServerStream) error {
		n := open.Add(1)
		defer open.Add(-1)
		for {
			was := most.Load()
			if n <= was || most.CompareAndSwap(was, n) {
				break
			}
		}
		served.Add(1)
		select {
		case <-leave:
		case <-s.Context().Done():
		}
		return nil
	}))
	// Two steps of one client.
	socks := []*ssh.Socket{forward(t, c, ssh.ForwardOpt{Mode: 0o600}), forward(t, c, ssh.ForwardOpt{Mode: 0o600})}
	var conns []net.Conn
	for i := range dialed {
		conns = append(conns, dial(t, socks[i%2]))
	}
	for served.Load() < limit {
		runtime.Gosched()
	}
	require.EqualValues(t, limit, served.Load())
	close(leave)
	for _, conn := range conns {
		_, err := io.ReadAll(conn)
		require.NoError(t, err)
	}
	require.EqualValues(t, dialed, served.Load(), "the others have their turn")
	require.EqualValues(t, limit, most.Load())
}
