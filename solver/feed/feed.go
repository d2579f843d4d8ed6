// Package feed keeps what a build tells, in the order in which it is told, for any number of readers.
//
// A Feed is the event.Sink of one build. What it is given it encodes at once, as messages of the
// control API, and writes on a tape: a growing row of bytes of which the end is in memory and the
// rest in a file. A tape is read by position, so a reader may come late, be slow or never read at
// all; none holds anybody up or costs more than its buffer.
//
// There are two ways to read a tape. Who watches a build is shown its output within limits, and
// where it was cut. The record of the build has all of it. What only one of the two is to have is
// told with the audience of a log.
//
// A step that is shared by builds tells all of them. What it told before a build joined is
// repeated to that one from the tape of another, see Pieces.
//
// The package knows neither jobs nor the history. Package solver makes a feed for each job, package
// schedule tells it what its nodes do, and package history keeps the tape when the build has ended.
package feed

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
)

// Feed is the sink of one build. Its methods may be called concurrently.
type Feed struct {
	tape *tape

	mu       sync.Mutex
	vertices map[digest.Digest]*event.Vertex
	// order is that in which vertices were first told of.
	order    []*event.Vertex
	statuses map[statusKey]*event.Status
	told     []*event.Status
	warnings int
	closed   bool
	// lost is set when output could not be kept, which is told once.
	lost bool
}

// New returns a feed whose tape is kept in dir when it has become long; the folder need not be there
// before. It holds no file until then.
func New(dir string) *Feed {
	return &Feed{tape: newTape(dir), vertices: map[digest.Digest]*event.Vertex{}}
}

// Emit takes a batch. A vertex that starts shows that its inputs are had: those that were
// announced and neither started nor found are told to be cached, and their inputs in turn.
// It never waits, neither for a reader nor for the disk. Credentials in urls are left out of all but
// the output of steps.
func (f *Feed) Emit(b event.Batch) { f.Keep(b) }

// Keep is Emit for who may have to repeat the logs of b to another feed: it returns where they are.
func (f *Feed) Keep(b event.Batch) []Piece {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	b = redacted(b)
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
	for _, st := range b.Statuses {
		f.noteStatus(st)
	}
	f.warnings += len(b.Warnings)
	logs := b.Logs
	b.Logs = nil
	_, _ = f.tape.append(event.Everybody, false, encode(b))
	return f.keepLogs(logs)
}

func (f *Feed) keepLogs(logs []event.Log) []Piece {
	var pieces []Piece
	for _, l := range logs {
		p, err := f.tape.append(l.Audience, true, encode(event.Batch{Logs: []event.Log{l}}))
		if err != nil {
			if f.lost {
				continue
			}
			f.lost = true
			l.Data = []byte("\n[output lost: " + err.Error() + "]\n")
			p, _ = f.tape.append(event.Everybody, false, encode(event.Batch{Logs: []event.Log{l}}))
		}
		pieces = append(pieces, p)
	}
	return pieces
}

// Repeat tells what is on other tapes, in order. It does not wait for the disk.
func (f *Feed) Repeat(pieces *Pieces) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for _, p := range pieces.list {
		f.tape.repeat(p)
	}
}

// Wait returns when there is room in memory for more output: when the disk is slower than a
// step, the step has to wait. It must not be called with a lock that others need.
func (f *Feed) Wait() { f.tape.wait() }

func (f *Feed) note(v event.Vertex) {
	known := f.vertices[v.Digest]
	if known == nil {
		known = &event.Vertex{}
		f.vertices[v.Digest] = known
		f.order = append(f.order, known)
	}
	if v.Started == nil && known.Started != nil {
		// Announced once more by another graph.
		return
	}
	*known = v
}

type statusKey struct {
	vertex digest.Digest
	id     string
}

// maxStatuses is how many statuses are remembered.
const maxStatuses = 10_000

func (f *Feed) noteStatus(st event.Status) {
	key := statusKey{st.Vertex, st.ID}
	known := f.statuses[key]
	if known == nil {
		if len(f.told) >= maxStatuses {
			return
		}
		if f.statuses == nil {
			f.statuses = map[statusKey]*event.Status{}
		}
		known = &event.Status{}
		f.statuses[key] = known
		f.told = append(f.told, known)
	}
	*known = st
}

// implied adds to out what the start of v tells of its inputs, a vertex after those that it needs:
// clients number steps in the order in which they hear of them.
func (f *Feed) implied(out []event.Vertex, v event.Vertex) []event.Vertex {
	now := time.Now()
	type visit struct {
		vertex *event.Vertex
		below  int // how many of the inputs were looked at
	}
	stack := []visit{{vertex: &v}}
	for len(stack) > 0 {
		at := &stack[len(stack)-1]
		if at.below == len(at.vertex.Inputs) {
			if len(stack) > 1 {
				out = append(out, *at.vertex)
			}
			stack = stack[:len(stack)-1]
			continue
		}
		in := f.vertices[at.vertex.Inputs[at.below]]
		at.below++
		if in == nil || in.Started != nil || in.Cached {
			continue
		}
		in.Started, in.Completed, in.Cached = &now, &now, true
		stack = append(stack, visit{vertex: in})
	}
	return out
}

// Close ends the feed: what has started and not completed is completed. Readers that have come to
// the end are done.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := time.Now()
	var b event.Batch
	for _, v := range f.order {
		if v.Started != nil && v.Completed == nil {
			v.Completed = &now
			if !v.Cached {
				v.Error = context.Canceled.Error()
			}
			b.Vertices = append(b.Vertices, *v)
		}
	}
	_, _ = f.tape.append(event.Everybody, false, encode(b))
	f.closed = true
	f.vertices, f.statuses = nil, nil
	f.tape.end()
}

// Vertices returns the vertices of a feed that is closed as they are, in the order in which they
// were first told of. They must not be changed.
func (f *Feed) Vertices() []*event.Vertex { return f.order }

// Statuses returns the last of each status of a feed that is closed, in the order in which they were first
// told of, of very many only the first. They must not be changed.
func (f *Feed) Statuses() []*event.Status { return f.told }

// Counts are the numbers of steps of a build by what became of them, and of its warnings.
type Counts struct{ Total, Cached, Completed, Warnings int }

// Counts returns the numbers of a feed that is closed.
func (f *Feed) Counts() Counts {
	c := Counts{Total: len(f.order), Warnings: f.warnings}
	for _, v := range f.order {
		if v.Cached {
			c.Cached++
		}
		if v.Completed != nil {
			c.Completed++
		}
	}
	return c
}

// Release gives up the tape, whose file is deleted unless it was taken. Readers go on to the end.
func (f *Feed) Release() { f.tape.disown() }
