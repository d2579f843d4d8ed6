package filesync

import (
	"sync"
	"sync/atomic"
	"time"
)

const progressInterval = 100 * time.Millisecond

// startProgress reports moved at intervals until the returned function is called, which reports
// for the last time. A nil fn is never called.
func startProgress(fn Progress, moved *atomic.Int64) (stop func()) {
	if fn == nil {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fn(moved.Load(), false)
			case <-done:
				fn(moved.Load(), true)
				return
			}
		}
	}()
	return func() {
		close(done)
		wg.Wait()
	}
}
