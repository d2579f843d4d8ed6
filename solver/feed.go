package solver

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
)

// feed is the sink of one job: it keeps what the build told, in order, for any number of
// listeners. A listener reads at its own pace and is told from the start; a slow one holds nobody
// up and costs nothing but its position.
type feed struct {
	mu      sync.Mutex
	batches []event.Batch
	// more is closed and replaced when there is more, or the end.
	more   chan struct{}
	closed bool

	vertices map[digest.Digest]*fedVertex
}

// fedVertex is what the feed knows of a vertex that it has told of.
type fedVertex struct {
	last event.Vertex
}

func newFeed() *feed {
	return &feed{more: make(chan struct{}), vertices: map[digest.Digest]*fedVertex{}}
}

// Emit takes a batch. A vertex that starts shows that its inputs are had: those that were
// announced and neither started nor found are told to be cached, and their inputs in turn.
func (f *feed) Emit(b event.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	var implied []event.Vertex
	for _, v := range b.Vertices {
		f.note(v)
		if v.Started != nil {
			implied = f.implied(implied, v)
		}
	}
	if len(implied) > 0 {
		b.Vertices = append(implied, b.Vertices...)
	}
	f.batches = append(f.batches, b)
	f.wake()
}

func (f *feed) wake() {
	close(f.more)
	f.more = make(chan struct{})
}

func (f *feed) note(v event.Vertex) {
	known := f.vertices[v.Digest]
	if known == nil {
		known = &fedVertex{}
		f.vertices[v.Digest] = known
	}
	if v.Started == nil && known.last.Started != nil {
		// Announced once more by another graph.
		return
	}
	known.last = v
}

func (f *feed) implied(out []event.Vertex, v event.Vertex) []event.Vertex {
	now := time.Now()
	stack := append([]digest.Digest(nil), v.Inputs...)
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		in := f.vertices[d]
		if in == nil || in.last.Started != nil || in.last.Cached {
			continue
		}
		in.last.Started, in.last.Completed, in.last.Cached = &now, &now, true
		out = append(out, in.last)
		stack = append(stack, in.last.Inputs...)
	}
	return out
}

// close ends the feed: what has started and not completed is completed.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := time.Now()
	var b event.Batch
	for _, v := range f.vertices {
		if v.last.Started != nil && v.last.Completed == nil {
			end := v.last
			end.Completed = &now
			if !end.Cached {
				end.Error = context.Canceled.Error()
			}
			b.Vertices = append(b.Vertices, end)
		}
	}
	if len(b.Vertices) > 0 {
		f.batches = append(f.batches, b)
	}
	f.closed = true
	f.vertices = nil
	f.wake()
}

// maxBatch bounds how many batches are put together for a listener.
const maxBatch = 1000

// listen calls emit with all that was and will be told, until the feed is closed, ctx ends or
// emit fails.
func (f *feed) listen(ctx context.Context, emit func(event.Batch) error) error {
	for pos := 0; ; {
		f.mu.Lock()
		news := f.batches[pos:]
		more, closed := f.more, f.closed
		f.mu.Unlock()
		if len(news) == 0 {
			if closed {
				return nil
			}
			select {
			case <-more:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		news = news[:min(len(news), maxBatch)]
		pos += len(news)
		if err := emit(join(news)); err != nil {
			return err
		}
	}
}

func join(batches []event.Batch) event.Batch {
	if len(batches) == 1 {
		return batches[0]
	}
	var out event.Batch
	for _, b := range batches {
		out.Vertices = append(out.Vertices, b.Vertices...)
		out.Statuses = append(out.Statuses, b.Statuses...)
		out.Logs = append(out.Logs, b.Logs...)
		out.Warnings = append(out.Warnings, b.Warnings...)
	}
	return out
}
