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
	_, err := sshpb.NewSSHClient(c.Conn()).CheckAgent(ctx, &sshpb.CheckAgentRequest{ID: id})
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

// Forward listens on a new socket at path and forwards each connection to the client's agent. The
// caller calls release, which ends all connections, removes the socket, and returns when nothing
// is left. Connections end with ctx and with the session, too.
func Forward(ctx context.Context, c *session.Caller, opt ForwardOpt) (path string, release func() error, err error) {
	dir, err := os.MkdirTemp("", "buildkit-ssh-")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "ssh_auth_sock")
	lis, err := listen(path, opt)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { accept(ctx, lis, c, opt.ID, &wg) })
	return path, sync.OnceValue(func() error {
		cancel()
		lis.Close()
		wg.Wait()
		return os.RemoveAll(dir)
	}), nil
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

// accept forwards connections until the listener is closed.
func accept(ctx context.Context, lis net.Listener, c *session.Caller, id string, wg *sync.WaitGroup) {
	for {
		sock, err := lis.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { forward(ctx, sock, c, id) })
	}
}

// forward moves bytes between a connection and the client. What fails ends the connection, which
// is what the step sees of it.
func forward(ctx context.Context, sock net.Conn, c *session.Caller, id string) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, keyID, orDefault(id)))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { sock.Close() })
	defer stop()
	defer sock.Close()
	stream, err := sshpb.NewSSHClient(c.Conn()).ForwardAgent(ctx)
	if err != nil {
		return
	}
	conn := &streamConn{messages: stream}
	var up sync.WaitGroup
	up.Go(func() {
		if copyAll(conn, sock) == nil {
			_ = stream.CloseSend()
		}
	})
	_ = copyAll(sock, conn)
	// The client has ended the call, so there is nobody for what the step may still write.
	sock.Close()
	up.Wait()
}
