package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/stats"

	"github.com/openbuildkit/buildkit/api/status"
)

// Bounds of the messages that are on their way between the daemon and peers, in bytes: a peer may begin
// as many calls as it has, and end none.
const (
	// maxHeld is for one peer.
	maxHeld = 256 << 20
	// maxHeldByAll is for all of a daemon. Beyond it, who holds more than fairlyHeld has to go.
	maxHeldByAll = 1 << 30
	fairlyHeld   = 32 << 20
)

// Total is what all peers of a kind hold. The zero value is ready for use.
type Total struct{ held atomic.Int64 }

// Ledger is the pool of the buffers of one peer. It knows how much is in use and tells when that is
// too much. What a call that was broken off had received is never given back: it is struck off when no
// call is open.
type Ledger struct {
	mem.BufferPool
	who  string
	all  *Total
	over func(error)

	mu   sync.Mutex
	held int64
	open atomic.Int64
}

// NewLedger returns the ledger of a peer, which errors call who. When the peer holds too much over is
// called, perhaps more than once, with the reason: it ends the peer's connection and does not wait for
// that.
func NewLedger(who string, all *Total, over func(error)) *Ledger {
	return &Ledger{BufferPool: mem.DefaultBufferPool(), who: who, all: all, over: over}
}

// Options make a server that has no other peer use the ledger.
func (l *Ledger) Options() []grpc.ServerOption {
	return []grpc.ServerOption{experimental.BufferPool(l), grpc.StatsHandler(openCalls{l})}
}

// Get returns a buffer and notes it.
func (l *Ledger) Get(length int) *[]byte {
	buf := l.BufferPool.Get(length)
	if mem.IsBelowBufferPoolingThreshold(cap(*buf)) {
		return buf // it will not come back
	}
	l.mu.Lock()
	l.held += int64(cap(*buf))
	held, all := l.held, l.all.held.Add(int64(cap(*buf)))
	l.mu.Unlock()
	if held > maxHeld || all > maxHeldByAll && held > fairlyHeld {
		l.over(status.New(codes.ResourceExhausted, fmt.Sprintf("%s has messages of more than %d MiB on their way", l.who, min(held, maxHeld)>>20)))
	}
	return buf
}

// Put takes a buffer back.
func (l *Ledger) Put(buf *[]byte) {
	if !mem.IsBelowBufferPoolingThreshold(cap(*buf)) {
		l.strike(int64(cap(*buf)))
	}
	l.BufferPool.Put(buf)
}

// Clear strikes all off. What comes back later counts for nothing.
func (l *Ledger) Clear() { l.strike(maxHeld + maxHeldByAll) }

func (l *Ledger) strike(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size = min(size, l.held)
	l.held -= size
	l.all.held.Add(-size)
}

// openCalls tells a ledger when no call is open, also of those whose message has not come yet.
type openCalls struct{ l *Ledger }

// TagRPC begins a call.
func (c openCalls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	c.l.open.Add(1)
	return ctx
}

// HandleRPC ends it.
func (c openCalls) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.End); ok && c.l.open.Add(-1) == 0 {
		c.l.Clear()
	}
}

// TagConn has nothing to do.
func (c openCalls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn has nothing to do.
func (c openCalls) HandleConn(context.Context, stats.ConnStats) {}
