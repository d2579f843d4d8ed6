package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	"github.com/openbuildkit/buildkit/api/status"
)

const (
	// maxMessage bounds one message in either direction, in bytes.
	maxMessage = 16 << 20
	// streamWindow and connWindow are the HTTP/2 flow control windows in bytes: what one call,
	// or all calls together, may have in flight. They bound the memory of a session too.
	streamWindow = 4 << 20
	connWindow   = 8 << 20
	readBuffer   = 128 << 10
	// writeBuffer is how much goes into one message of the connection that the session is in.
	// Buffers of messages come in sizes up to 1 MiB, and are cleared as a whole: it is a little less.
	writeBuffer = 1<<20 - 16<<10
)

// errOneConnection is what a second dial on a tunnel gets.
var errOneConnection = errors.New("only one connection allowed")

// serverOptions are those of the server of a session, with the propagator that reads which trace a call is
// part of.
func serverOptions(p propagation.TextMapPropagator) []grpc.ServerOption {
	return []grpc.ServerOption{
		ServerCodec(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		grpc.UnaryInterceptor(status.UnaryServer),
		grpc.StreamInterceptor(status.StreamServer),
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithPropagators(p), otelgrpc.WithFilter(traced))),
	}
}

// dialTunnel returns a gRPC client over conn, which it owns from now on. The client never dials
// again.
func dialTunnel(conn net.Conn) (*grpc.ClientConn, error) {
	var once sync.Once
	dial := func(context.Context, string) (c net.Conn, err error) {
		err = errOneConnection
		once.Do(func() { c, err = conn, nil })
		return c, err
	}
	cc, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithWriteBufferSize(writeBuffer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(status.UnaryClient),
		grpc.WithStreamInterceptor(status.StreamClient),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithPropagators(propagators()), otelgrpc.WithFilter(traced))),
	)
	if err != nil {
		return nil, err
	}
	cc.Connect()
	return cc, nil
}

// propagators are those of the W3C.
func propagators() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// within is a propagator for calls that come without a trace: they are part of a span.
type within struct {
	propagation.TextMapPropagator
	span *trace.SpanContext
}

// Extract returns a context with the span of the one who calls.
func (w within) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	ctx = w.TextMapPropagator.Extract(ctx, c)
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithSpanContext(ctx, *w.span)
}

// traced leaves the health checks, which nobody wants to see, out of traces.
func traced(info *stats.RPCTagInfo) bool {
	return info.FullMethodName != healthCheckMethod
}

// watchedConn tells when a connection has failed or was closed.
type watchedConn struct {
	net.Conn
	lost func(error)
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.report(err)
	}
	return n, err
}

func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.report(err)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.report(errClosed)
	return c.Conn.Close()
}

var errClosed = errors.New("connection closed")

func (c *watchedConn) report(err error) { c.lost(plainEnd(err)) }

// plainEnd names the many ways in which a connection ends without a fault by one error.
func plainEnd(err error) error {
	for _, end := range []error{io.EOF, net.ErrClosed, io.ErrClosedPipe, context.Canceled} {
		if errors.Is(err, end) {
			return errClosed
		}
	}
	return err
}

// oneConn is a listener that accepts one connection and ends with it.
type oneConn struct {
	conn  chan net.Conn
	addr  net.Addr
	done  <-chan struct{}
	close func()
}

// newOneConn returns a listener of conn that ends when it is closed or ctx ends.
func newOneConn(ctx context.Context, conn net.Conn) *oneConn {
	ctx, cancel := context.WithCancel(ctx)
	l := &oneConn{conn: make(chan net.Conn, 1), addr: conn.LocalAddr(), done: ctx.Done(), close: cancel}
	l.conn <- conn
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	l.close()
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }
