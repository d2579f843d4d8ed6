// Package client talks to a daemon: it asks for builds and offers what they need, follows their
// progress, and looks after the daemon's storage.
//
// A Client is a connection. Solve has a definition or a frontend built by the daemon; Build runs
// a frontend on this side, which asks the daemon for the steps. Both open a session in which the
// daemon reads local directories, asks for credentials and secrets, and sends outputs back, and
// both report progress as event records to a sink.
//
// Errors carry their gRPC code and the typed records of package status. The package neither
// reads the environment nor prints; that is up to programs such as buildctl. It declares messages
// under the protobuf names that other BuildKit clients use too, so a program can link only one of
// them.
package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/connhelper"
	"github.com/openbuildkit/buildkit/session"
)

// maxMessage bounds one message in either direction, in bytes.
const maxMessage = 16 << 20

// ioBuffer is how much of a connection is read or written at once, in bytes: outputs of gigabytes
// go through it.
const ioBuffer = 128 << 10

// Client is a connection to a daemon. Methods may be called concurrently.
type Client struct {
	conn    *grpc.ClientConn
	control controlpb.ControlClient
	dial    session.Dialer
}

type options struct {
	tls            *tls.Config
	connectTimeout time.Duration
	dialer         func(context.Context, string) (net.Conn, error)
	sessionDialer  session.Dialer
	grpc           []grpc.DialOption
}

// Option changes how a Client connects.
type Option func(*options)

// WithTLS encrypts the connection. An empty ServerName means the host of the address.
func WithTLS(cfg *tls.Config) Option { return func(o *options) { o.tls = cfg } }

// WithConnectTimeout bounds how long an attempt to connect takes; 0 leaves it to the system.
func WithConnectTimeout(d time.Duration) Option { return func(o *options) { o.connectTimeout = d } }

// WithDialer connects with a function instead of the address, which still gives the name.
func WithDialer(dial func(ctx context.Context, address string) (net.Conn, error)) Option {
	return func(o *options) { o.dialer = dial }
}

// WithSessionDialer opens sessions with a function instead of the control API.
func WithSessionDialer(d session.Dialer) Option { return func(o *options) { o.sessionDialer = d } }

// WithGRPCOptions adds options of the gRPC connection; they come last.
func WithGRPCOptions(opts ...grpc.DialOption) Option {
	return func(o *options) { o.grpc = append(o.grpc, opts...) }
}

// New returns a client of the daemon at address: unix://path, tcp://host:port, npipe://path on
// Windows, or an address of package connhelper. The empty address is DefaultAddress. It connects
// when first used.
func New(address string, opts ...Option) (*Client, error) {
	if address == "" {
		address = DefaultAddress
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	target, dialOpts, err := o.dialOptions(address)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, append(dialOpts, o.grpc...)...)
	if err != nil {
		return nil, fmt.Errorf("failed to dial %q . make sure buildkitd is running: %w", address, err)
	}
	c := &Client{conn: conn, control: controlpb.NewControlClient(conn), dial: o.sessionDialer}
	if c.dial == nil {
		c.dial = session.GRPCDialer(c.control)
	}
	return c, nil
}

// dialOptions returns the gRPC target of an address and the options to reach it.
func (o *options) dialOptions(address string) (string, []grpc.DialOption, error) {
	opts := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithChainUnaryInterceptor(status.UnaryClient),
		grpc.WithChainStreamInterceptor(status.StreamClient),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithFilter(traced), otelgrpc.WithPropagators(
			propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})))),
	}
	host := hostOf(address)
	creds := insecure.NewCredentials()
	if o.tls != nil {
		cfg := o.tls.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName = host
		}
		host = cfg.ServerName
		creds = credentials.NewTLS(cfg)
	}
	opts = append(opts, grpc.WithTransportCredentials(creds))
	if host != "" {
		opts = append(opts, grpc.WithAuthority(host))
	}
	if o.connectTimeout > 0 {
		opts = append(opts, grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.DefaultConfig, MinConnectTimeout: o.connectTimeout,
		}))
	}
	dial, target, err := o.dialerOf(address)
	if err != nil {
		return "", nil, err
	}
	if dial != nil {
		opts = append(opts, grpc.WithContextDialer(dial))
	}
	return target, opts, nil
}

// traced leaves out of traces how traces are sent: each would bring the next.
func traced(info *stats.RPCTagInfo) bool {
	return info.FullMethodName != coltracepb.TraceService_Export_FullMethodName
}

// dialerOf returns the function that connects, nil for gRPC's own, and the target it is given.
func (o *options) dialerOf(address string) (func(context.Context, string) (net.Conn, error), string, error) {
	const fixed = "passthrough:///daemon"
	if o.dialer != nil {
		return func(ctx context.Context, _ string) (net.Conn, error) { return o.dialer(ctx, address) }, fixed, nil
	}
	helper, err := connhelper.Get(address)
	if err != nil {
		return nil, "", err
	}
	if helper != nil {
		return func(ctx context.Context, _ string) (net.Conn, error) { return helper(ctx) }, fixed, nil
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}, fixed, nil
	}
	rest := strings.TrimPrefix(address, "tcp://")
	if scheme, _, ok := strings.Cut(rest, "://"); ok {
		return nil, "", fmt.Errorf("addresses with %s:// are not supported, known are unix, tcp and helpers such as docker-container and ssh", scheme)
	}
	if strings.Contains(rest, "/") {
		return nil, "", fmt.Errorf("address %s does not contain proto, you meant unix://%s ?", address, address)
	}
	return nil, "passthrough:///" + rest, nil
}

// hostOf returns the host of an address, empty if it has none.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Conn returns the connection, for other services of the daemon.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Wait returns once the daemon answers. It asks again every second while the daemon cannot be
// reached.
func (c *Client) Wait(ctx context.Context) error {
	const interval = time.Second
	for {
		_, err := c.control.Info(ctx, &controlpb.InfoRequest{})
		switch status.Code(err) {
		case codes.OK, codes.Unimplemented:
			return nil
		case codes.Unavailable:
		default:
			return err
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
			c.conn.ResetConnectBackoff()
		}
	}
}

// callError says what was asked for. That the daemon is not there is named as such: the rest of
// the text is about a network and users do not know of it.
func callError(call string, err error) error {
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("%s: %s: %w", call, codes.Unavailable, err)
	}
	return fmt.Errorf("%s: %w", call, err)
}
