package image

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway/peer"
)

// Bounds of what one program may take of the daemon.
const (
	// maxMessage is the limit of the API in both directions, in bytes.
	maxMessage = 16 << 20
	// maxCalls are answered at once; others wait.
	maxCalls = 128
	// callWindow is how much is taken of a call that is not read, in bytes.
	callWindow = 256 << 10
)

// aliveTimeout is how long a program may not answer a ping: it is stopped or stuck.
const aliveTimeout = time.Minute

// server serves the gateway API to one program.
type server struct {
	grpc   *grpc.Server
	idle   *idleWatch
	ledger *peer.Ledger
	kill   context.CancelCauseFunc
}

// newServer returns the server of a program. When the program cannot be served any more, or hangs,
// kill is called with the reason.
func (f *Frontend) newServer(api *gateway.Server, kill context.CancelCauseFunc) *server {
	s := &server{kill: kill}
	s.idle = newIdleWatch(f.cfg.IdleTimeout, func() { kill(errIdle(f.cfg.IdleTimeout)) })
	s.ledger = peer.NewLedger("the frontend", &f.held, kill)
	s.grpc = grpc.NewServer(append(s.ledger.Options(),
		// A fixed window: how much of what nobody reads is taken does not grow with the connection.
		grpc.InitialWindowSize(callWindow),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.WaitForHandlers(true),
		// How long a program may take before it says anything is for the watch to tell.
		grpc.ConnectionTimeout(2*f.cfg.IdleTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveTimeout, Timeout: aliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(status.UnaryServer, status.RecoverUnary, s.unary),
		grpc.ChainStreamInterceptor(status.StreamServer, status.RecoverStream, s.stream),
	)...)
	gatewaypb.RegisterLLBBridgeServer(s.grpc, api)
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	return s
}

// serve serves conn until it is closed by either side.
func (s *server) serve(conn net.Conn) {
	program := &programConn{Conn: conn}
	peer.Serve(s.grpc, program, func() { s.kill(program.lost()) })
}

// close ends all calls and waits for them.
func (s *server) close() {
	s.idle.stop()
	s.grpc.Stop()
	s.ledger.Clear()
}

func (s *server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	defer s.idle.begin()()
	return handler(ctx, req)
}

func (s *server) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	defer s.idle.begin()()
	return handler(srv, stream)
}

// idleWatch tells when no call has been open for some time.
type idleWatch struct {
	limit time.Duration
	mu    sync.Mutex
	open  int
	timer *time.Timer
	over  bool
}

func newIdleWatch(limit time.Duration, expired func()) *idleWatch {
	w := &idleWatch{limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		w.mu.Lock()
		idle := w.open == 0 && !w.over
		w.mu.Unlock()
		if idle {
			expired()
		}
	})
	return w
}

// begin is called at the beginning of a call, what it returns at the end.
func (w *idleWatch) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	w.timer.Stop()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.open--; w.open == 0 && !w.over {
			w.timer.Reset(w.limit)
		}
	}
}

func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// preface is what a client of HTTP/2 begins with, RFC 9113 section 3.4.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// programConn is the connection to a program.
type programConn struct {
	net.Conn

	mu    sync.Mutex
	first []byte // as long as preface, at most
}

// Read keeps what comes first.
func (c *programConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := len(preface) - len(c.first); room > 0 {
		c.first = append(c.first, p[:min(n, room)]...)
	}
	return n, err
}

// lost returns why the connection has ended before the program.
func (c *programConn) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	msg := "frontend grpc server closed unexpectedly"
	if !bytes.HasPrefix([]byte(preface), c.first) {
		msg += fmt.Sprintf(": its standard output is not gRPC but %q", c.first)
	}
	return status.New(codes.Unavailable, msg)
}
