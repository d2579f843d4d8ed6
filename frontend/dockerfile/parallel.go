package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

// errSibling ends what runs beside something that failed. Unlike the failure itself it can be told
// apart in what the sibling then returns.
var errSibling = fmt.Errorf("another part of the build failed: %w", context.Canceled)

// each runs f for 0 to n-1 at once. The first failure ends the others. A panic goes on in the
// goroutine of the caller, where whoever runs the frontend can recover from it.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var panicked atomic.Pointer[string]
	for i := range n {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					text := fmt.Sprintf("%v\n%s", r, debug.Stack())
					panicked.Store(&text)
					cancel(errSibling)
				}
			}()
			if f(ctx, i) != nil {
				cancel(errSibling)
			}
		})
	}
	wg.Wait()
	if text := panicked.Load(); text != nil {
		panic(*text)
	}
}

// culprit returns the index of the first error that is not just a consequence of another one, so
// that a Dockerfile that is wrong for several reasons gives the same error each time; -1 without.
func culprit(errs []error) int {
	first := -1
	for i, err := range errs {
		if err == nil {
			continue
		}
		if !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
			return i
		}
		if first < 0 {
			first = i
		}
	}
	return first
}
