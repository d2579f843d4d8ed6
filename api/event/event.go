// Package event holds the records by which a build tells what it is doing: vertices, statuses,
// log lines and warnings, and the sink that receives them.
//
// Records flow one way, from whatever works on a vertex through a Sink to the job that asked,
// and from there to every listener. The package knows nothing of jobs, wires or displays; the
// daemon turns a Batch into control messages, a client turns those back into Batches.
package event

import (
	"time"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Stream numbers of Log records.
const (
	Stdout = 1
	Stderr = 2
)

// Vertex is the state of one vertex. It is sent whole each time that it changes.
type Vertex struct {
	Digest digest.Digest
	Inputs []digest.Digest
	Name   string
	// Started and Completed are nil until the vertex starts and ends.
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	// Error is empty unless the vertex failed.
	Error         string
	ProgressGroup *pb.ProgressGroup
}

// Status is the progress of one step inside a vertex, such as the transfer of a layer. The pair
// of Vertex and ID identifies it; later records replace earlier ones.
type Status struct {
	ID     string
	Vertex digest.Digest
	// Name is what is shown; empty means ID.
	Name string
	// Total and Current count bytes or items; a Total of 0 is unknown.
	Total, Current int64
	Timestamp      time.Time
	Started        *time.Time
	Completed      *time.Time
}

// Log is a piece of output of a vertex, in the order written, not split at line ends.
type Log struct {
	Vertex    digest.Digest
	Stream    int
	Data      []byte
	Timestamp time.Time
	// Audience is whom the daemon tells; it is not sent.
	Audience Audience
}

// Audience is who is told of output: those who watch a build are shown a bounded part of it, its
// record has all.
type Audience int

// The audiences.
const (
	Everybody Audience = iota
	// Watchers are shown where output was cut, and the end of it once more.
	Watchers
	// Record is told what is too much for those who watch.
	Record
)

// Warning is advice to the user, tied to a vertex and often to lines of a source file.
type Warning struct {
	Vertex digest.Digest
	// Level orders warnings by weight; 1 is the default.
	Level  int
	Short  []byte
	Detail [][]byte
	URL    string
	Source *pb.SourceInfo
	Ranges []*pb.Range
}

// Batch is a set of records that belong together. Any part may be empty.
type Batch struct {
	Vertices []Vertex
	Statuses []Status
	Logs     []Log
	Warnings []Warning
}

// Sink receives records. Emit may be called from any goroutine, keeps no reference to slices it
// was given beyond the records in them, and never waits for a listener. The sink of a job of the
// daemon does not keep the Data of logs either.
type Sink interface {
	Emit(Batch)
}

// SinkFunc is a function that is a Sink.
type SinkFunc func(Batch)

// Emit calls f.
func (f SinkFunc) Emit(b Batch) { f(b) }

// Discard is a Sink that forgets.
var Discard Sink = SinkFunc(func(Batch) {})
