package progress

import (
	"encoding/json"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// JSONWriter writes records as JSON, one object a line for each batch.
type JSONWriter struct{ enc *json.Encoder }

// NewJSONWriter returns a writer to w.
func NewJSONWriter(w io.Writer) *JSONWriter { return &JSONWriter{json.NewEncoder(w)} }

// Write writes a batch in one call of the underlying writer.
func (j *JSONWriter) Write(b event.Batch) error { return j.enc.Encode(encodeBatch(b)) }

type rawJSON struct{ w *JSONWriter }

func (r rawJSON) add(b event.Batch) error { return r.w.Write(b) }
func (rawJSON) refresh() error            { return nil }
func (rawJSON) finish() error             { return nil }

// The JSON form is the one that tools parse; field names are spelled as they expect.

type batchJSON struct {
	Vertexes []vertexJSON  `json:"vertexes,omitempty"`
	Statuses []statusJSON  `json:"statuses,omitempty"`
	Logs     []logJSON     `json:"logs,omitempty"`
	Warnings []warningJSON `json:"warnings,omitempty"`
}

type vertexJSON struct {
	Digest        digest.Digest     `json:"digest,omitempty"`
	Inputs        []digest.Digest   `json:"inputs,omitempty"`
	Name          string            `json:"name,omitempty"`
	Started       *time.Time        `json:"started,omitempty"`
	Completed     *time.Time        `json:"completed,omitempty"`
	Cached        bool              `json:"cached,omitempty"`
	Error         string            `json:"error,omitempty"`
	ProgressGroup *pb.ProgressGroup `json:"progressGroup,omitempty"`
}

type statusJSON struct {
	ID        string        `json:"id"`
	Vertex    digest.Digest `json:"vertex,omitempty"`
	Name      string        `json:"name,omitempty"`
	Total     int64         `json:"total,omitempty"`
	Current   int64         `json:"current"`
	Timestamp time.Time     `json:"timestamp"`
	Started   *time.Time    `json:"started,omitempty"`
	Completed *time.Time    `json:"completed,omitempty"`
}

type logJSON struct {
	Vertex    digest.Digest `json:"vertex,omitempty"`
	Stream    int           `json:"stream,omitempty"`
	Data      []byte        `json:"data"`
	Timestamp time.Time     `json:"timestamp"`
}

type warningJSON struct {
	Vertex digest.Digest  `json:"vertex,omitempty"`
	Level  int            `json:"level,omitempty"`
	Short  []byte         `json:"short,omitempty"`
	Detail [][]byte       `json:"detail,omitempty"`
	URL    string         `json:"url,omitempty"`
	Source *pb.SourceInfo `json:"sourceInfo,omitempty"`
	Ranges []*pb.Range    `json:"range,omitempty"`
}

func encodeBatch(b event.Batch) batchJSON {
	var out batchJSON
	for _, v := range b.Vertices {
		out.Vertexes = append(out.Vertexes, vertexJSON(v))
	}
	for _, s := range b.Statuses {
		out.Statuses = append(out.Statuses, statusJSON(s))
	}
	for _, l := range b.Logs {
		out.Logs = append(out.Logs, logJSON{Vertex: l.Vertex, Stream: l.Stream, Data: l.Data, Timestamp: l.Timestamp})
	}
	for _, w := range b.Warnings {
		out.Warnings = append(out.Warnings, warningJSON(w))
	}
	return out
}
