package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// Names of the headers that open a session; lower-case where they travel as gRPC metadata.
const (
	headerID            = "X-Docker-Expose-Session-Uuid"
	headerName          = "X-Docker-Expose-Session-Name"
	headerSharedKey     = "X-Docker-Expose-Session-Sharedkey"
	headerMethod        = "X-Docker-Expose-Session-Grpc-Method"
	headerHealthTimeout = "X-Buildkit-Session-Health-Custom-Timeout"
)

// Attachable is a service that a session offers.
type Attachable interface {
	Register(*grpc.Server)
}

// Dialer opens the byte stream of a session to a daemon. proto is always h2c; meta holds the
// headers to send, by lower-case name. The connection's lifetime may be bound to ctx.
type Dialer func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error)

// Session is the client's half of a session. Services are allowed first, then it is run, once.
type Session struct {
	id        string
	sharedKey string
	srv       *grpc.Server
	// span is the one in which the session is run. What a daemon asks for is part of it, unless the daemon
	// says of what.
	span trace.SpanContext

	closeOnce sync.Once
	closed    chan struct{}
}

// New returns a session with a new id. The shared key, which may be empty, tells the daemon which
// of the sessions of a user see the same files: it keeps the last transfer for the next one.
func New(sharedKey string) (*Session, error) {
	if i := strings.IndexFunc(sharedKey, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return nil, fmt.Errorf("invalid shared key %q: only printable ASCII is allowed", sharedKey)
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	s := &Session{
		id:        id,
		sharedKey: sharedKey,
		closed:    make(chan struct{}),
	}
	s.srv = grpc.NewServer(serverOptions(within{propagators(), &s.span})...)
	grpc_health_v1.RegisterHealthServer(s.srv, health.NewServer())
	return s, nil
}

// newID returns 25 base-36 characters, some 129 random bits.
func newID() (string, error) {
	const length = 25
	limit := new(big.Int).Exp(big.NewInt(36), big.NewInt(length), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return "", fmt.Errorf("make session id: %w", err)
	}
	text := n.Text(36)
	return strings.Repeat("0", length-len(text)) + text, nil
}

// ID returns the id by which requests name the session.
func (s *Session) ID() string { return s.id }

// Allow offers a service. It must not be called after Run.
func (s *Session) Allow(a Attachable) { a.Register(s.srv) }

// Run connects and serves the daemon until ctx ends or Close is called, which return nil, or the
// connection is lost, which returns an error that matches ErrLost. Calls in progress are
// cancelled then.
func (s *Session) Run(ctx context.Context, dial Dialer) error {
	s.span = trace.SpanContextFromContext(ctx)
	conn, err := dial(ctx, "h2c", s.headers())
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	life, end := context.WithCancelCause(ctx)
	defer end(nil)
	watched := &watchedConn{Conn: conn, lost: func(err error) { end(&LostError{ID: s.id, Cause: err}) }}
	err = s.srv.Serve(newOneConn(life, watched))
	conn.Close()
	if c, ok := conn.(*StreamConn); ok {
		<-c.end // with it ends the span of the call, which nobody would see later
	}
	s.srv.Stop()
	return s.outcome(ctx, life, err)
}

func (s *Session) outcome(ctx, life context.Context, err error) error {
	select {
	case <-s.closed:
		return nil
	default:
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller wanted this end
	}
	if cause := context.Cause(life); cause != nil {
		return cause
	}
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// headers returns what the session says of itself.
func (s *Session) headers() map[string][]string {
	h := map[string][]string{
		strings.ToLower(headerID):        {s.id},
		strings.ToLower(headerSharedKey): {s.sharedKey},
	}
	key := strings.ToLower(headerMethod)
	for name, svc := range s.srv.GetServiceInfo() {
		for _, m := range svc.Methods {
			h[key] = append(h[key], "/"+name+"/"+m.Name)
		}
	}
	slices.Sort(h[key])
	return h
}

// Close ends the session: calls in progress are cancelled and Run returns. It may be called at
// any time and more than once.
func (s *Session) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.srv.Stop()
	})
	return nil
}

// GRPCDialer opens sessions with the Session call of a daemon's control API.
func GRPCDialer(c controlpb.ControlClient) Dialer {
	return func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		md, _ := metadata.FromOutgoingContext(ctx)
		stream, err := c.Session(metadata.NewOutgoingContext(ctx, metadata.Join(md, meta)), WithCodec())
		if err != nil {
			cancel()
			return nil, err
		}
		return NewStreamConn(stream, cancel), nil
	}
}
