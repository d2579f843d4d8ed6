package event

import (
	"time"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Scope is a Sink narrowed to one vertex: what code that works on a vertex is handed. The zero
// Scope discards. It is a value and may be copied.
type Scope struct {
	sink   Sink
	vertex digest.Digest
}

// NewScope returns the scope of vertex in sink. A nil sink discards.
func NewScope(sink Sink, vertex digest.Digest) Scope {
	return Scope{sink: sink, vertex: vertex}
}

// Vertex returns the digest of the scope's vertex, empty for the zero Scope.
func (s Scope) Vertex() digest.Digest { return s.vertex }

func (s Scope) emit(b Batch) {
	if s.sink != nil {
		s.sink.Emit(b)
	}
}

// Status reports st, with the vertex and, where missing, the time filled in.
func (s Scope) Status(st Status) {
	st.Vertex = s.vertex
	if st.Timestamp.IsZero() {
		st.Timestamp = time.Now()
	}
	s.emit(Batch{Statuses: []Status{st}})
}

// Step reports the start of a step and returns the function that reports its end. A step that
// ends with an error is reported as ended all the same: the error belongs to the vertex.
func (s Scope) Step(id string) (done func(error) error) {
	start := time.Now()
	s.Status(Status{ID: id, Started: &start, Timestamp: start})
	return func(err error) error {
		end := time.Now()
		s.Status(Status{ID: id, Started: &start, Completed: &end, Timestamp: end})
		return err
	}
}

// Log reports a piece of output. Whether data may be changed afterwards depends on the sink.
func (s Scope) Log(stream int, data []byte) { s.LogFor(Everybody, stream, data) }

// LogFor is Log for a part of those who are told.
func (s Scope) LogFor(who Audience, stream int, data []byte) {
	s.emit(Batch{Logs: []Log{{Vertex: s.vertex, Stream: stream, Data: data, Timestamp: time.Now(), Audience: who}}})
}

// Writer returns a writer whose every Write is reported as a Log of stream. Writes copy.
func (s Scope) Writer(stream int) LogWriter { return LogWriter{s, stream} }

// Warn reports w, with the vertex filled in and a zero level raised to 1.
func (s Scope) Warn(w Warning) {
	w.Vertex = s.vertex
	if w.Level == 0 {
		w.Level = 1
	}
	s.emit(Batch{Warnings: []Warning{w}})
}

// Start reports that the vertex, an internal one that is no part of an LLB graph, has started,
// and returns the function that reports its end. Its error, if any, is returned unchanged.
func (s Scope) Start(name string, group *pb.ProgressGroup, inputs ...digest.Digest) (done func(error) error) {
	start := time.Now()
	v := Vertex{Digest: s.vertex, Name: name, Inputs: inputs, Started: &start, ProgressGroup: group}
	s.emit(Batch{Vertices: []Vertex{v}})
	return func(err error) error {
		end := time.Now()
		v.Completed = &end
		if err != nil {
			v.Error = err.Error()
		}
		s.emit(Batch{Vertices: []Vertex{v}})
		return err
	}
}

// LogWriter reports what is written to it as output of a vertex.
type LogWriter struct {
	scope  Scope
	stream int
}

// Write never fails.
func (w LogWriter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		w.scope.Log(w.stream, append([]byte(nil), p...))
	}
	return len(p), nil
}
