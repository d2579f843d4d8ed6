package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// CheckAgent returns an error of the kind NotFound unless the client offers an agent with the id,
// which is empty for the default one.
func CheckAgent(ctx context.Context, c *session.Caller, id string) error {
	if !c.Supports(sshpb.SSH_CheckAgent_FullMethodName) {
		return agentError(fmt.Sprintf("no SSH key %q forwarded from the client", id))
	}
	_, err := sshpb.NewSSHClient(c.Short()).CheckAgent(ctx, &sshpb.CheckAgentRequest{ID: id})
	if err != nil && !isMissing(err) {
		// Agents that are not there are told of in words that users and clients know.
		return fmt.Errorf("ssh agent %s: %w", orDefault(id), err)
	}
	return err
}

// isMissing tells whether a client says that it has no agent, which clients do with no code.
func isMissing(err error) bool {
	code := status.Code(err)
	return code == codes.NotFound || code == codes.Unknown
}

// Missing returns what remains of an error of CheckAgent for who can do without the agent: nil if
// nobody has it.
func Missing(err error) error {
	if errors.Is(err, session.ErrNoSession) {
		return nil
	}
	return session.Except(err, func(err error) bool { return isMissing(err) || status.Code(err) == codes.Unimplemented })
}

// ForwardOpt says which agent is forwarded and whose the socket is.
type ForwardOpt struct {
	ID       string
	UID, GID int
	Mode     fs.FileMode
}

// Socket is where a step finds an agent of a client.
type Socket struct {
	// Path is where it listens.
	Path string

	end func() error

	mu  sync.Mutex
	err error
}

// Forward listens on a new socket and forwards each connection to the client's agent. The caller
// closes it. Connections end with ctx and with the session, too.
func Forward(ctx context.Context, c *session.Caller, opt ForwardOpt) (*Socket, error) {
	dir, err := os.MkdirTemp("", "buildkit-ssh-")
	if err != nil {
		return nil, err
	}
	s := &Socket{Path: filepath.Join(dir, "ssh_auth_sock")}
	lis, err := listen(s.Path, opt)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.accept(ctx, lis, c, opt.ID, &wg) })
	s.end = sync.OnceValue(func() error {
		cancel()
		lis.Close()
		wg.Wait()
		return os.RemoveAll(dir)
	})
	return s, nil
}

// Close ends all connections, removes the socket, and returns when nothing is left.
func (s *Socket) Close() error { return s.end() }

// Err returns the first error that the client's service has ended a connection with, nil if it has not.
// It is a fault of the session.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Socket) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func listen(path string, opt ForwardOpt) (net.Listener, error) {
	lis, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(path, opt.UID, opt.GID), os.Chmod(path, opt.Mode)); err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return lis, nil
}

// accept forwards connections until the listener is closed. How many there are at a time is up to the
// step, and what each takes of memory up to the client, so those that are too many wait.
func (s *Socket) accept(ctx context.Context, lis net.Listener, c *session.Caller, id string, wg *sync.WaitGroup) {
	for {
		sock, err := lis.Accept()
		if err != nil {
			return
		}
		done, err := c.Reserve(ctx)
		if err != nil {
			sock.Close()
			return
		}
		wg.Go(func() {
			defer done()
			if err := forward(ctx, sock, c, id); err != nil && ctx.Err() == nil {
				s.note(fmt.Errorf("ssh agent %s of the client: %w", orDefault(id), err))
			}
		})
	}
}

// maxMessage is the largest message of a client, in bytes. Those of its own agents are much smaller.
const maxMessage = 1 << 20

// forward moves bytes between a connection and the client. What fails ends the connection, which
// is what the step sees of it. The error is that of the client, before the step was done.
func forward(ctx context.Context, sock net.Conn, c *session.Caller, id string) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, keyID, orDefault(id)))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { sock.Close() })
	defer stop()
	defer sock.Close()
	stream, err := sshpb.NewSSHClient(c.Conn()).ForwardAgent(ctx, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	conn := &streamConn{messages: stream}
	stepDone := make(chan struct{})
	go func() {
		defer close(stepDone)
		if copyAll(conn, sock) == nil {
			_ = stream.CloseSend()
		}
	}()
	_ = copyAll(sock, conn)
	err = conn.err
	select {
	case <-stepDone:
		err = nil // it has got all that it wanted
	default:
	}
	// The client has ended the call, so there is nobody for what the step may still write.
	sock.Close()
	<-stepDone
	return err
}
