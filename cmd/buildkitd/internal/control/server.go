package control

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/log"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/frontend/gateway/peer"
	"github.com/openbuildkit/buildkit/session"
)

// maxMessage is the limit of the API in both directions.
const maxMessage = 16 << 20

// ioBuffer is how much of a connection is read or written at once, in bytes: outputs of gigabytes
// go through it.
const ioBuffer = 128 << 10

// pingInterval is how often a client may ask whether the daemon is still there. gRPC's own rule, once
// in 5 minutes, ends the connections of clients that keep them alive through proxies, and so their
// builds.
const pingInterval = time.Second

// maxCalls are those of one connection at a time; others wait.
const maxCalls = 1024

// Server is the gRPC server of a daemon: the control API, the gateway API, content, traces of
// clients, health and reflection. Every connection has a server of its own, so that it is known whose
// the messages are that are on their way, and who holds too much.
type Server struct {
	Health *health.Server

	controller *Controller
	more       []grpc.ServerOption
	held       peer.Total

	mu        sync.Mutex
	listeners []net.Listener
	open      map[*grpc.Server]struct{}
	// stopped is closed when new connections are refused; serving are those that there are.
	stopped chan struct{}
	serving sync.WaitGroup
}

// NewServer returns the server of c, with more options. It serves nothing yet.
func NewServer(c *Controller, more ...grpc.ServerOption) *Server {
	return &Server{
		Health: health.NewServer(), controller: c, more: more,
		open: map[*grpc.Server]struct{}{}, stopped: make(chan struct{}),
	}
}

// Serve serves the connections of a listener until that is closed, and returns its error; nil if the
// server was stopped, which closes it.
func (s *Server) Serve(lis net.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, lis)
	if s.isStopped() {
		_ = lis.Close()
	}
	s.mu.Unlock()
	for wait := time.Duration(0); ; {
		conn, err := lis.Accept()
		if err == nil {
			wait = 0
			s.serve(conn)
			continue
		}
		var passing interface{ Temporary() bool }
		if !errors.As(err, &passing) || !passing.Temporary() {
			if s.isStopped() {
				return nil
			}
			return err
		}
		// Such as too many open files: others may end.
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(wait):
		case <-s.stopped:
		}
	}
}

func (s *Server) isStopped() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// serve serves a connection in the background.
func (s *Server) serve(conn net.Conn) {
	ledger := peer.NewLedger("the client", &s.held, func(err error) {
		log.L.WithError(err).WithField("client", conn.RemoteAddr()).Warn("a connection is closed")
		go conn.Close() // which may wait for what is being written
	})
	srv := s.newServer(ledger)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isStopped() {
		_ = conn.Close()
		return
	}
	s.open[srv] = struct{}{}
	s.serving.Go(func() {
		peer.Serve(srv, conn, func() {})
		srv.GracefulStop() // the connection has gone, calls may not have ended yet
		ledger.Clear()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, srv)
	})
}

func (s *Server) newServer(ledger *peer.Ledger) *grpc.Server {
	options := slices.Concat([]grpc.ServerOption{
		session.ServerCodec(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.WriteBufferSize(ioBuffer),
		grpc.ReadBufferSize(ioBuffer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(status.UnaryServer, status.RecoverUnary),
		grpc.ChainStreamInterceptor(status.StreamServer, status.RecoverStream),
	}, ledger.Options(), s.more)
	srv, c := grpc.NewServer(options...), s.controller
	controlpb.RegisterControlServer(srv, c)
	gatewaypb.RegisterLLBBridgeServer(srv, c.cfg.Builds)
	contentapi.RegisterContentServer(srv, c.content)
	coltracepb.RegisterTraceServiceServer(srv, c.cfg.Traces)
	healthpb.RegisterHealthServer(srv, s.Health)
	reflection.Register(srv)
	return srv
}

// GracefulStop takes no more connections and calls, and returns when all calls have ended.
func (s *Server) GracefulStop() { s.stop((*grpc.Server).GracefulStop) }

// Stop closes all connections, which ends their calls.
func (s *Server) Stop() { s.stop((*grpc.Server).Stop) }

func (s *Server) stop(how func(*grpc.Server)) {
	s.mu.Lock()
	if !s.isStopped() { // GracefulStop may be cut short by Stop
		close(s.stopped)
	}
	for _, lis := range s.listeners {
		_ = lis.Close() // perhaps once more
	}
	for srv := range s.open {
		go how(srv)
	}
	s.mu.Unlock()
	s.serving.Wait()
}
