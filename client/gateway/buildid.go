package gateway

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
)

// buildIDKey is the metadata by which a daemon tells the builds apart whose frontends share a
// connection.
const buildIDKey = "buildkit-controlapi-buildid"

// BridgeOf returns the gateway API of one build on a connection to a daemon. The id is that of the
// build's solve request.
func BridgeOf(conn grpc.ClientConnInterface, buildID string) gatewaypb.LLBBridgeClient {
	return gatewaypb.NewLLBBridgeClient(&buildConn{conn, buildID})
}

type buildConn struct {
	conn grpc.ClientConnInterface
	id   string
}

func (c *buildConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.conn.Invoke(c.withID(ctx), method, args, reply, opts...)
}

func (c *buildConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.conn.NewStream(c.withID(ctx), desc, method, opts...)
}

func (c *buildConn) withID(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, buildIDKey, c.id)
}
