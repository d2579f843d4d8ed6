package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
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

// Server is the gRPC server of a daemon: the control API, the gateway API, health and reflection.
type Server struct {
	*grpc.Server
	Health *health.Server
}

// NewServer returns the server of c. It serves nothing yet.
func NewServer(c *Controller) *Server {
	s := grpc.NewServer(
		session.ServerCodec(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.WriteBufferSize(ioBuffer),
		grpc.ReadBufferSize(ioBuffer),
		grpc.ChainUnaryInterceptor(status.UnaryServer, recoverUnary),
		grpc.ChainStreamInterceptor(status.StreamServer, recoverStream),
	)
	h := health.NewServer()
	controlpb.RegisterControlServer(s, c)
	gatewaypb.RegisterLLBBridgeServer(s, c.cfg.Builds)
	healthpb.RegisterHealthServer(s, h)
	reflection.Register(s)
	return &Server{Server: s, Health: h}
}

func recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer recovered(ctx, info.FullMethod, &err)
	return handler(ctx, req)
}

func recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer recovered(stream.Context(), info.FullMethod, &err)
	return handler(srv, stream)
}

// recovered turns a panic of a handler into its error. It must be deferred itself.
func recovered(ctx context.Context, method string, err *error) {
	value := recover()
	if value == nil {
		return
	}
	*err = status.WithStack(status.New(codes.Internal, fmt.Sprintf("%s: panic: %v", method, value)))
	log.G(ctx).WithError(*err).WithField("stack", stackText(*err)).Error("a call panicked")
}

func stackText(err error) string {
	var b strings.Builder
	if werr := status.PrintStacks(&b, err); werr != nil {
		return werr.Error()
	}
	return b.String()
}
