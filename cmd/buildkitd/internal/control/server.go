package control

import (
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
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

// Server is the gRPC server of a daemon: the control API, the gateway API, content, traces of
// clients, health and reflection.
type Server struct {
	*grpc.Server
	Health *health.Server
}

// NewServer returns the server of c, with more options. It serves nothing yet.
func NewServer(c *Controller, more ...grpc.ServerOption) *Server {
	s := grpc.NewServer(append([]grpc.ServerOption{
		session.ServerCodec(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.WriteBufferSize(ioBuffer),
		grpc.ReadBufferSize(ioBuffer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(status.UnaryServer, status.RecoverUnary),
		grpc.ChainStreamInterceptor(status.StreamServer, status.RecoverStream),
	}, more...)...)
	h := health.NewServer()
	controlpb.RegisterControlServer(s, c)
	gatewaypb.RegisterLLBBridgeServer(s, c.cfg.Builds)
	contentapi.RegisterContentServer(s, c.content)
	coltracepb.RegisterTraceServiceServer(s, c.cfg.Traces)
	healthpb.RegisterHealthServer(s, h)
	reflection.Register(s)
	return &Server{Server: s, Health: h}
}
