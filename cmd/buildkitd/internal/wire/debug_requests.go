package wire

import (
	"context"
	"net/http"
	"path"

	"golang.org/x/net/trace"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/api/status"
)

// showRequests shows calls that are being served, and some that were. It is for who may see the debug
// address; of calls there is nothing but names and codes.
func showRequests(w http.ResponseWriter, r *http.Request) { trace.Render(w, r, false) }

// requestTraces returns the options of a server whose calls showRequests shows. How many it keeps of
// those that have ended is bounded.
func requestTraces() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
			defer follow(info.FullMethod)(&err)
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer follow(info.FullMethod)(&err)
			return handler(srv, stream)
		}),
	}
}

// follow begins the trace of a call and returns what ends it.
func follow(method string) func(*error) {
	tr := trace.New(path.Base(path.Dir(method)), path.Base(method))
	return func(err *error) {
		if *err != nil {
			tr.LazyPrintf("%s", status.Code(*err))
			tr.SetError()
		}
		tr.Finish()
	}
}
