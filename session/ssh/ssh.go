// Package ssh lets build steps use ssh agents and other sockets of the client.
//
// A client allows a Provider with agents by id: the socket of a running agent, of which steps may
// list keys and sign with them but not change it; key files, served by an agent inside the
// client; or any socket, raw. The daemon checks for an agent with CheckAgent and puts a socket
// where a step finds it with Forward; each connection to it becomes one connection at the client.
package ssh

import (
	"errors"
	"io"

	"google.golang.org/grpc/codes"

	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
)

const (
	keyID     = "buildkit.ssh.id"
	defaultID = "default"
	// chunk is the most data in one message, in bytes.
	chunk = 32 << 10
)

// messages is either end of ForwardAgent.
type messages interface {
	Send(*sshpb.BytesMessage) error
	Recv() (*sshpb.BytesMessage, error)
}

// streamConn reads and writes the bytes in messages. One goroutine may read and another write.
type streamConn struct {
	messages
	rest []byte
	// err is what Recv failed with, nil at the end of the stream.
	err error
}

func (s *streamConn) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		m, err := s.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.err = err
			}
			return 0, err
		}
		s.rest = m.GetData()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *streamConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		m := p[:min(len(p), chunk)]
		if err := s.Send(&sshpb.BytesMessage{Data: m}); err != nil {
			return n, err
		}
		n += len(m)
		p = p[len(m):]
	}
	return n, nil
}

// copyAll copies from r to w in pieces that fit into one message.
func copyAll(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, chunk))
	return err
}

// agentError is an error of an agent that is not there.
type agentError string

func (e agentError) Error() string    { return string(e) }
func (e agentError) Code() codes.Code { return codes.NotFound }

func orDefault(id string) string {
	if id == "" {
		return defaultID
	}
	return id
}
