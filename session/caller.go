package session

import (
	"context"
	"strings"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
)

// Caller is a session as the daemon sees it. All methods may be called concurrently.
type Caller struct {
	id, name, sharedKey string
	methods             map[string]bool
	conn                *callerConn
	slots               *semaphore.Weighted
	life                context.Context //nolint:containedctx // ends with the session; its cause is a *LostError
}

// ID returns the session's id.
func (c *Caller) ID() string { return c.id }

// Name returns the name that the client gave, mostly none.
func (c *Caller) Name() string { return c.name }

// SharedKey returns the key that sessions of one user with the same files share; it may be empty.
func (c *Caller) SharedKey() string { return c.sharedKey }

// Supports reports whether the client offers a method, named /<service>/<method>, upper and lower
// case being the same.
func (c *Caller) Supports(method string) bool { return c.methods[strings.ToLower(method)] }

// Conn makes calls to the client. Every call ends at once when the session does, with an error
// that matches ErrLost. What the client answers with is a *Fault of the session.
func (c *Caller) Conn() grpc.ClientConnInterface { return c.conn }

// maxAnswer bounds short answers, in bytes.
const maxAnswer = 1 << 20

// Short is Conn for calls whose answers are short: a client that begins long ones, for many calls at
// once, has none of the daemon's memory for that.
func (c *Caller) Short() grpc.ClientConnInterface { return shortConn{c.conn} }

type shortConn struct{ grpc.ClientConnInterface }

func (c shortConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, append(opts, grpc.MaxCallRecvMsgSize(maxAnswer))...)
}

// maxOpen is how many calls may be made for a session that others open at will: each may hold as much
// of what the client sends as a call may have in flight.
const maxOpen = 32

// Reserve waits until there may be one more call that is not the daemon's but a step's to open, and
// returns the function that gives it back.
func (c *Caller) Reserve(ctx context.Context) (release func(), err error) {
	ctx, free := c.conn.bind(ctx)
	defer free()
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { c.slots.Release(1) }, nil
}

// Done is closed when the session has ended.
func (c *Caller) Done() <-chan struct{} { return c.life.Done() }

// Err returns nil while the session lives, then an error that matches ErrLost.
func (c *Caller) Err() error { return context.Cause(c.life) }

// callerConn ties calls to the life of a session.
type callerConn struct {
	id   string
	cc   grpc.ClientConnInterface
	life context.Context //nolint:containedctx // the session's, which calls are bound to
}

// bind returns a context that ends with ctx or with the session, and a function that frees it.
func (c *callerConn) bind(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	return ctx, func() { stop(); cancel(nil) }
}

func (c *callerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	bound, free := c.bind(ctx)
	defer free()
	return c.judge(ctx, notUnderstood(method, c.cc.Invoke(bound, method, args, reply, opts...)))
}

func (c *callerConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	bound, free := c.bind(ctx)
	stream, err := c.cc.NewStream(bound, desc, method, opts...)
	if err != nil {
		free()
		return nil, c.judge(ctx, err)
	}
	context.AfterFunc(bound, free)
	return &callerStream{
		ClientStream: stream, method: method, free: free, single: !desc.ServerStreams,
		judge: func(err error) error { return c.judge(ctx, err) },
	}, nil
}

// judge says whose fault the error of a call is that was made with ctx: the session's, unless the
// caller has given it up.
func (c *callerConn) judge(ctx context.Context, err error) error {
	err = explain(c.life, err)
	if ctx.Err() != nil {
		return err
	}
	return blame(c.id, err)
}

// callerStream frees its context when the stream has ended.
type callerStream struct {
	grpc.ClientStream
	method string
	judge  func(error) error
	free   func()
	single bool // there is one response
}

func (s *callerStream) SendMsg(m any) error {
	return s.judge(s.ClientStream.SendMsg(m))
}

func (s *callerStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.single {
		s.free()
	}
	return s.judge(notUnderstood(s.method, err))
}
