package llb

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// SourceMap is a file that ops were written in, so that errors can show the lines they come
// from.
type SourceMap struct {
	info   *pb.SourceInfo
	origin *State
}

// NewSourceMap returns the source map of a file with contents data. Language is a name such as
// "Dockerfile". Origin, which may be nil, yields a tree that holds the file.
func NewSourceMap(origin *State, filename, language string, data []byte) *SourceMap {
	return &SourceMap{
		info:   &pb.SourceInfo{Filename: filename, Language: language, Data: data},
		origin: origin,
	}
}

// Location ties an op to lines of m. Several may be given. A nil SourceMap gives an option
// without effect.
func (m *SourceMap) Location(ranges ...*pb.Range) ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) {
		if m != nil {
			c.locations = appendCopy(c.locations, &sourceLocation{m, ranges})
		}
	})
}

type sourceLocation struct {
	source *SourceMap
	ranges []*pb.Range
}

// sourceCollector gathers the locations of the ops of one definition.
type sourceCollector struct {
	locations map[digest.Digest][]*sourceLocation
	order     []digest.Digest
	sources   []*SourceMap
	index     map[*SourceMap]int32
}

func newSourceCollector() *sourceCollector {
	return &sourceCollector{
		locations: map[digest.Digest][]*sourceLocation{},
		index:     map[*SourceMap]int32{},
	}
}

func (c *sourceCollector) add(dgst digest.Digest, locations []*sourceLocation) {
	known, ok := c.locations[dgst]
	if !ok {
		c.order = append(c.order, dgst)
	}
	for _, l := range locations {
		if _, ok := c.index[l.source]; !ok {
			c.index[l.source] = int32(len(c.sources))
			c.sources = append(c.sources, l.source)
		}
		if !slices.Contains(known, l) {
			known = append(known, l)
		}
	}
	c.locations[dgst] = known
}

func (c *sourceCollector) marshal(ctx context.Context, r *resolver) (*pb.Source, error) {
	src := &pb.Source{Locations: make(map[string]*pb.Locations, len(c.order))}
	for _, dgst := range c.order {
		ls := &pb.Locations{}
		for _, l := range c.locations[dgst] {
			ls.Locations = append(ls.Locations, &pb.Location{SourceIndex: c.index[l.source], Ranges: l.ranges})
		}
		src.Locations[string(dgst)] = ls
	}
	for _, m := range c.sources {
		info := m.info
		if m.origin != nil {
			def, err := r.marshal(ctx, *m.origin)
			if err != nil {
				return nil, err
			}
			info = proto.CloneOf(info)
			info.Definition = def
		}
		src.Infos = append(src.Infos, info)
	}
	return src, nil
}
