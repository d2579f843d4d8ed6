package image

import (
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	"github.com/openbuildkit/buildkit/api/status"
)

// Bounds of the messages that are on their way between the daemon and programs, in bytes: a program may
// begin as many calls as it has, and end none.
const (
	// maxHeld is for one program.
	maxHeld = 256 << 20
	// maxHeldByAll is for all of a daemon. Beyond it, who holds more than fairlyHeld has to go.
	maxHeldByAll = 1 << 30
	fairlyHeld   = 32 << 20
)

// ledger is the pool of the buffers of one program. It knows how much is in use and tells when that is
// too much. What a call that was broken off had received is never given back: it is struck off when no
// call is open.
type ledger struct {
	mem.BufferPool
	all  *atomic.Int64
	over func(error)

	mu   sync.Mutex
	held int64
}

func newLedger(all *atomic.Int64, over func(error)) *ledger {
	return &ledger{BufferPool: mem.DefaultBufferPool(), all: all, over: over}
}

// Get returns a buffer and notes it.
func (l *ledger) Get(length int) *[]byte {
	buf := l.BufferPool.Get(length)
	if mem.IsBelowBufferPoolingThreshold(cap(*buf)) {
		return buf // it will not come back
	}
	l.mu.Lock()
	l.held += int64(cap(*buf))
	held, all := l.held, l.all.Add(int64(cap(*buf)))
	l.mu.Unlock()
	if held > maxHeld || all > maxHeldByAll && held > fairlyHeld {
		l.over(status.New(codes.ResourceExhausted, fmt.Sprintf("the frontend has messages of more than %d MiB on their way", min(held, maxHeld)>>20)))
	}
	return buf
}

// Put takes a buffer back.
func (l *ledger) Put(buf *[]byte) {
	if !mem.IsBelowBufferPoolingThreshold(cap(*buf)) {
		l.strike(int64(cap(*buf)))
	}
	l.BufferPool.Put(buf)
}

// clear strikes all off. What comes back later counts for nothing.
func (l *ledger) clear() { l.strike(maxHeld + maxHeldByAll) }

func (l *ledger) strike(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size = min(size, l.held)
	l.held -= size
	l.all.Add(-size)
}
