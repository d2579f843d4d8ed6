package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
)

// Environment of a frontend container.
const (
	envOptPrefix = "BUILDKIT_FRONTEND_OPT_"
	envSessionID = "BUILDKIT_SESSION_ID"
	envWorkers   = "BUILDKIT_WORKERS"
	envProduct   = "BUILDKIT_EXPORTEDPRODUCT"
)

// maxMessage bounds one message in either direction, in bytes.
const maxMessage = 16 << 20

// Serve runs a frontend inside a frontend container: in and out are its standard streams, which
// lead to the daemon, and environ is its environment as os.Environ returns it.
func Serve(ctx context.Context, in io.ReadCloser, out io.WriteCloser, environ []string, build BuildFunc) error {
	cfg, workers, err := parseEnvironment(environ)
	if err != nil {
		return err
	}
	cc, err := dialOnce(newStdioConn(in, out))
	if err != nil {
		return err
	}
	defer cc.Close()
	c, err := Connect(ctx, gatewaypb.NewLLBBridgeClient(cc), cfg)
	if err != nil {
		return fmt.Errorf("connect to the daemon: %w", err)
	}
	if len(workers) > 0 {
		c.opts.Workers = workers
	}
	return c.Run(ctx, build)
}

func parseEnvironment(environ []string) (cfg Config, workers []WorkerInfo, err error) {
	cfg.Opts = map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, envOptPrefix):
			key, v, _ := strings.Cut(value, "=")
			cfg.Opts[key] = v
		case name == envSessionID:
			cfg.SessionID = value
		case name == envProduct:
			cfg.Product = value
		case name == envWorkers && value != "":
			if err := json.Unmarshal([]byte(value), &workers); err != nil {
				return cfg, nil, fmt.Errorf("%s: %w", envWorkers, err)
			}
		}
	}
	return cfg, workers, nil
}

func dialOnce(conn net.Conn) (*grpc.ClientConn, error) {
	var once sync.Once
	return grpc.NewClient("passthrough:///daemon",
		grpc.WithContextDialer(func(context.Context, string) (c net.Conn, err error) {
			err = errors.New("only one connection allowed")
			once.Do(func() { c, err = conn, nil })
			return c, err
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(status.UnaryClient),
		grpc.WithStreamInterceptor(status.StreamClient),
	)
}

// stdioConn is two streams as one connection.
type stdioConn struct {
	*io.PipeReader
	in  io.Closer
	out io.WriteCloser
}

// newStdioConn reads in ahead: a read of a standard stream cannot be interrupted, and closing the
// connection must not wait for one.
func newStdioConn(in io.ReadCloser, out io.WriteCloser) *stdioConn {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, in)
		pw.CloseWithError(err)
	}()
	return &stdioConn{PipeReader: pr, in: in, out: out}
}

func (c *stdioConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *stdioConn) Close() error {
	return errors.Join(c.PipeReader.Close(), c.in.Close(), c.out.Close())
}

func (c *stdioConn) LocalAddr() net.Addr  { return stdioAddr{} }
func (c *stdioConn) RemoteAddr() net.Addr { return stdioAddr{} }

// Deadlines are not needed: contexts end calls.

func (c *stdioConn) SetDeadline(time.Time) error      { return nil }
func (c *stdioConn) SetReadDeadline(time.Time) error  { return nil }
func (c *stdioConn) SetWriteDeadline(time.Time) error { return nil }

type stdioAddr struct{}

func (stdioAddr) Network() string { return "pipe" }
func (stdioAddr) String() string  { return "stdio" }
