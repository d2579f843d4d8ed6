package feed

import (
	"errors"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// Recover makes the recording of a build that its program did not live to end, of the file that Save told:
// all that is whole in it, and then that what had started has ended at a time, with an error. It returns
// the numbers of the build too. The file becomes the recording or is deleted.
func Recover(path string, at time.Time, cause string) (*Recording, Counts, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, Counts{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, Counts{}, err
	}
	told, err := survey(f, st.Size())
	if err != nil {
		return nil, Counts{}, err
	}
	last, err := appendFrames(nil, told.ends(timestamppb.New(at), cause))
	if err != nil {
		return nil, Counts{}, err
	}
	rec := &Recording{Path: path, Size: told.size + int64(len(last))}
	if rec.Size < spillAt {
		rec.Path, rec.Data = "", make([]byte, rec.Size)
		if err := readFull(f, rec.Data[:told.size], 0); err != nil {
			return nil, Counts{}, err
		}
		copy(rec.Data[told.size:], last)
		return rec, told.counts(), os.Remove(path)
	}
	if err := f.Truncate(told.size); err != nil {
		return nil, Counts{}, err
	}
	_, err = f.WriteAt(last, told.size)
	return rec, told.counts(), err
}

// survivors is what a file tells that may be cut off.
type survivors struct {
	// size is that of the part that is whole.
	size     int64
	vertices map[string]*controlpb.Vertex
	order    []*controlpb.Vertex
	warnings int
}

func survey(f *os.File, size int64) (*survivors, error) {
	s := &survivors{vertices: map[string]*controlpb.Vertex{}}
	r := reader{src: f}
	for s.size < size {
		message, next, err := r.next(s.size, size)
		switch {
		case errors.Is(err, ErrDamaged):
			return s, nil
		case err != nil:
			return nil, err
		}
		var m controlpb.StatusResponse
		if proto.Unmarshal(message, &m) != nil {
			return s, nil //nolint:nilerr // it ends here, like one that is cut off
		}
		s.note(&m)
		s.size = next
	}
	return s, nil
}

func (s *survivors) note(m *controlpb.StatusResponse) {
	s.warnings += len(m.GetWarnings())
	for _, v := range m.GetVertexes() {
		known := s.vertices[v.GetDigest()]
		switch {
		case known == nil:
			s.order = append(s.order, v)
			s.vertices[v.GetDigest()] = v
		case v.GetStarted() != nil || known.GetStarted() == nil: // see Feed.note
			proto.Reset(known)
			proto.Merge(known, v)
		}
	}
}

// ends returns the messages that end what has started.
func (s *survivors) ends(at *timestamppb.Timestamp, cause string) []*controlpb.StatusResponse {
	var parts splitter
	for _, v := range s.order {
		if v.GetStarted() == nil || v.GetCompleted() != nil {
			continue
		}
		v.Completed = at
		if !v.GetCached() {
			v.Error = cause
		}
		part := parts.room(proto.Size(v))
		part.Vertexes = append(part.Vertexes, v)
	}
	return parts.parts
}

func (s *survivors) counts() Counts {
	c := Counts{Total: len(s.order), Warnings: s.warnings}
	for _, v := range s.order {
		if v.GetCached() {
			c.Cached++
		}
		if v.GetCompleted() != nil {
			c.Completed++
		}
	}
	return c
}
