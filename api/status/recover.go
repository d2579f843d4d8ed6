package status

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// RecoverUnary is an interceptor of servers: a call that panics fails, the server goes on. The panic
// is logged with its stack.
func RecoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer recovered(ctx, info.FullMethod, &err)
	return handler(ctx, req)
}

// RecoverStream is RecoverUnary for streams.
func RecoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer recovered(stream.Context(), info.FullMethod, &err)
	return handler(srv, stream)
}

// recovered turns a panic of a handler into its error. It must be deferred itself.
func recovered(ctx context.Context, method string, err *error) {
	value := recover()
	if value == nil {
		return
	}
	*err = WithStack(New(codes.Internal, fmt.Sprintf("%s: panic: %v", method, value)))
	log.G(ctx).WithError(*err).WithField("stack", stackText(*err)).Error("a call panicked")
}

func stackText(err error) string {
	var b strings.Builder
	if werr := PrintStacks(&b, err); werr != nil {
		return werr.Error()
	}
	return b.String()
}
