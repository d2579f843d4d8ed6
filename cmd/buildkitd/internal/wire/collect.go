package wire

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
	"github.com/openbuildkit/buildkit/solver"
)

const (
	// collectDelay is the time from the start of the daemon, or the end of a build, to the
	// collection: builds often come one after the other.
	collectDelay = time.Second
	// collectPause is the least time between two collections.
	collectPause = time.Minute
)

// collector applies the policies of the configuration now and then.
type collector struct {
	storage  control.Storage
	policies []gc.Policy
	wanted   chan struct{} // holds at most one wish
}

func newCollector(storage control.Storage, policies []gc.Policy) *collector {
	return &collector{storage: storage, policies: policies, wanted: make(chan struct{}, 1)}
}

// want asks for a collection soon. It does not wait.
func (c *collector) want() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// run collects until ctx ends: soon after the start, and soon after it was asked for.
func (c *collector) run(ctx context.Context) error {
	if len(c.policies) == 0 {
		return nil
	}
	c.want()
	for {
		select {
		case <-c.wanted:
		case <-ctx.Done():
			return nil
		}
		if !pause(ctx, collectDelay) {
			return nil
		}
		c.collect(ctx)
		if !pause(ctx, collectPause) {
			return nil
		}
	}
}

// collect runs the policies. A failure is logged: the next time may do better.
func (c *collector) collect(ctx context.Context) {
	var size int64
	var count int
	err := c.storage.Prune(ctx, c.policies, func(u cache.Usage) {
		size += u.Size
		count++
	})
	if err != nil && ctx.Err() == nil {
		log.G(ctx).WithError(err).Error("garbage collection failed")
	}
	if count > 0 {
		log.G(ctx).Infof("garbage collection removed %d records of %d bytes", count, size)
	}
}

// pause waits; it returns false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// collecting is a solver whose builds are followed by a collection.
type collecting struct {
	control.Solver
	collector *collector
}

// Solve implements control.Solver.
func (c collecting) Solve(ctx context.Context, req solver.Request) (*solver.Response, error) {
	defer c.collector.want()
	return c.Solver.Solve(ctx, req)
}
