package feed

import (
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
)

// maxPart bounds a message of Status, far below what clients accept. A record that is larger has
// a message of its own.
const maxPart = 1 << 20

// encode returns b as messages of bounded size, none if it is empty.
func encode(b event.Batch) []*controlpb.StatusResponse {
	var s splitter
	for i := range b.Vertices {
		v := encodeVertex(&b.Vertices[i])
		part := s.room(proto.Size(v))
		part.Vertexes = append(part.Vertexes, v)
	}
	for i := range b.Statuses {
		st := encodeVertexStatus(&b.Statuses[i])
		part := s.room(proto.Size(st))
		part.Statuses = append(part.Statuses, st)
	}
	for _, l := range b.Logs {
		// Data is not split at line ends anyway.
		for first := true; first || len(l.Data) > 0; first = false {
			piece := l.Data[:min(len(l.Data), maxPart)]
			l.Data = l.Data[len(piece):]
			part := s.room(len(piece) + len(l.Vertex))
			part.Logs = append(part.Logs, &controlpb.VertexLog{
				Vertex:    l.Vertex.String(),
				Stream:    int64(l.Stream),
				Msg:       piece,
				Timestamp: timestamppb.New(l.Timestamp),
			})
		}
	}
	for i := range b.Warnings {
		w := encodeWarning(&b.Warnings[i])
		part := s.room(proto.Size(w))
		part.Warnings = append(part.Warnings, w)
	}
	return s.parts
}

// splitter fills messages up to maxPart.
type splitter struct {
	parts []*controlpb.StatusResponse
	size  int // of the last part
}

// room returns the message that takes the next record, of size bytes.
func (s *splitter) room(size int) *controlpb.StatusResponse {
	if len(s.parts) == 0 || s.size > 0 && s.size+size > maxPart {
		s.parts = append(s.parts, &controlpb.StatusResponse{})
		s.size = 0
	}
	s.size += size
	return s.parts[len(s.parts)-1]
}

func encodeVertex(v *event.Vertex) *controlpb.Vertex {
	return &controlpb.Vertex{
		Digest:        v.Digest.String(),
		Inputs:        digestStrings(v.Inputs),
		Name:          v.Name,
		Cached:        v.Cached,
		Started:       encodeTime(v.Started),
		Completed:     encodeTime(v.Completed),
		Error:         v.Error,
		ProgressGroup: v.ProgressGroup,
	}
}

func encodeVertexStatus(st *event.Status) *controlpb.VertexStatus {
	return &controlpb.VertexStatus{
		ID:        st.ID,
		Vertex:    st.Vertex.String(),
		Name:      st.Name,
		Current:   st.Current,
		Total:     st.Total,
		Timestamp: timestamppb.New(st.Timestamp),
		Started:   encodeTime(st.Started),
		Completed: encodeTime(st.Completed),
	}
}

func encodeWarning(w *event.Warning) *controlpb.VertexWarning {
	return &controlpb.VertexWarning{
		Vertex: w.Vertex.String(),
		Level:  int64(w.Level),
		Short:  w.Short,
		Detail: w.Detail,
		Url:    w.URL,
		Info:   w.Source,
		Ranges: w.Ranges,
	}
}

func encodeTime(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func digestStrings(in []digest.Digest) []string {
	out := make([]string, len(in))
	for i, d := range in {
		out[i] = d.String()
	}
	return out
}
