package llb

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// LocalOption changes how a directory of the client is read.
type LocalOption interface {
	applyLocal(*sourceInfo)
}

type localOpt func(*sourceInfo)

func (o localOpt) applyLocal(s *sourceInfo) { o(s) }

// Local reads a directory that the client offers under a name.
func Local(name string, opts ...LocalOption) State {
	var info sourceInfo
	for _, o := range opts {
		o.applyLocal(&info)
	}
	info.need(pb.CapSourceLocal)
	return (&localOp{sourceOp{identifier: pb.SchemeLocal + name, info: info}}).state()
}

// localOp is a source that may be told apart from equal ones of other graphs.
type localOp struct{ sourceOp }

func (l *localOp) state() State {
	s := l.sourceOp.state()
	if s.err == nil {
		s.edge.vertex = l
	}
	return s
}

func (l *localOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	_, session := l.info.attrs[pb.AttrLocalSession]
	_, unique := l.info.attrs[pb.AttrLocalUnique]
	id := r.constraints.LocalUniqueID
	if id == "" || session || unique {
		return l.sourceOp.plan(ctx, r)
	}
	src := sourceOp{identifier: l.identifier, info: l.info}
	src.info.attrs = map[string]string{pb.AttrLocalUnique: id}
	for k, v := range l.info.attrs {
		src.info.attrs[k] = v
	}
	src.info.caps = appendCopy(l.info.caps, pb.CapSourceLocalUnique)
	return src.plan(ctx, r)
}

// SessionID reads from this session rather than from any of the build.
func SessionID(id string) LocalOption {
	return localOpt(func(s *sourceInfo) { s.set(pb.AttrLocalSession, id, pb.CapSourceLocalSessionID) })
}

// UniqueID tells the directory from ones of the same name and options.
func UniqueID(id string) LocalOption {
	return localOpt(func(s *sourceInfo) { s.set(pb.AttrLocalUnique, id, pb.CapSourceLocalUnique) })
}

// IncludePatterns sends only files that match one of the patterns.
func IncludePatterns(patterns ...string) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.setList(pb.AttrLocalIncludePatterns, patterns, pb.CapSourceLocalIncludePatterns)
	})
}

// ExcludePatterns leaves out files that match one of the patterns.
func ExcludePatterns(patterns ...string) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.setList(pb.AttrLocalExcludePatterns, patterns, pb.CapSourceLocalExcludePatterns)
	})
}

// FollowPaths sends only these paths and what symbolic links on the way to them name.
func FollowPaths(paths ...string) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.setList(pb.AttrLocalFollowPaths, paths, pb.CapSourceLocalFollowPaths)
	})
}

// SharedKeyHint lets directories of different sessions with an equal hint share what was sent.
func SharedKeyHint(hint string) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.set(pb.AttrLocalSharedKeyHint, hint, pb.CapSourceLocalSharedKeyHint)
	})
}

// DifferMode says how files that were sent before are recognised.
type DifferMode string

// Modes of comparing: send all files again, or those whose metadata changed.
const (
	DifferNone     DifferMode = "none"
	DifferMetadata DifferMode = "metadata"
)

// Differ sets how files that were sent before are recognised. If required, a daemon that has no
// other way than metadata refuses the build.
func Differ(mode DifferMode, required bool) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.set(pb.AttrLocalDiffer, string(mode), "")
		if required {
			s.need(pb.CapSourceLocalDiffer)
		}
	})
}

// MetadataOnly sends names and attributes of files but no contents, except of files that match
// one of the patterns.
func MetadataOnly(except ...string) LocalOption {
	return localOpt(func(s *sourceInfo) {
		s.set(pb.AttrLocalMetadataTransfer, "true", pb.CapSourceLocalMetadataTransfer)
		s.setList(pb.AttrLocalMetadataTransferExclude, except, "")
	})
}
