package status

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// UnaryServer maps the errors of handlers with ToGRPC.
func UnaryServer(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, ToGRPC(err)
}

// StreamServer maps the errors of stream handlers with ToGRPC, and what they receive with
// FromGRPC.
func StreamServer(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return ToGRPC(handler(srv, serverStream{ss}))
}

// UnaryClient maps the errors of calls with FromGRPC.
func UnaryClient(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return FromGRPC(invoker(ctx, method, req, reply, cc, opts...))
}

// StreamClient maps the errors of streams with FromGRPC.
func StreamClient(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cs, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, FromGRPC(err)
	}
	return clientStream{cs}, nil
}

type serverStream struct{ grpc.ServerStream }

func (s serverStream) SendMsg(m any) error { return streamError(s.ServerStream.SendMsg(m)) }
func (s serverStream) RecvMsg(m any) error { return streamError(s.ServerStream.RecvMsg(m)) }

type clientStream struct{ grpc.ClientStream }

func (s clientStream) SendMsg(m any) error { return streamError(s.ClientStream.SendMsg(m)) }
func (s clientStream) RecvMsg(m any) error { return streamError(s.ClientStream.RecvMsg(m)) }
func (s clientStream) CloseSend() error    { return streamError(s.ClientStream.CloseSend()) }

func (s clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, streamError(err)
}

// streamError spares the end of a stream, which callers compare with io.EOF.
func streamError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return FromGRPC(err)
}
