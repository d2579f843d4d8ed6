package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// file is the Dockerfile and where it came from.
type file struct {
	data   []byte
	ref    gateway.Reference
	source *llb.SourceMap
	// info is what errors and warnings show lines of; vertex is the op that yields the tree.
	info   *pb.SourceInfo
	vertex digest.Digest
}

// localTree returns a directory of the client.
func (b *build) localTree(name, hint, title string, opts ...llb.LocalOption) llb.State {
	session := b.opts.sessionID
	if id := b.opts.sessions[name]; id != "" {
		session = id
	}
	if given := b.opts.raw[optSharedKey+name]; given != "" {
		hint = given
	}
	opts = append(opts, llb.SharedKeyHint(hint), llb.CustomName(title))
	if session != "" {
		opts = append(opts, llb.SessionID(session))
	}
	return llb.Local(name, opts...)
}

// loadFile reads the Dockerfile from the client.
func (b *build) loadFile(ctx context.Context) (*file, error) {
	name := b.opts.filename
	follow := []string{name, name + ignoreSuffix}
	fallback := ""
	if path.Base(name) == defaultFilename {
		fallback = path.Join(path.Dir(name), strings.ToLower(defaultFilename))
		follow = append(follow, fallback)
	}
	tree := b.localTree(b.opts.dockerfileLocal, b.opts.dockerfileLocal, "[internal] load build definition from "+name,
		llb.FollowPaths(follow...), llb.Differ(llb.DifferNone, false))
	if b.dockerfileTree != nil {
		tree = *b.dockerfileTree
	}
	f, err := b.openFile(ctx, tree)
	if err != nil {
		return nil, err
	}
	f.data, err = f.ref.ReadFile(ctx, gateway.ReadRequest{Filename: name})
	if err != nil && fallback != "" {
		if data, err2 := f.ref.ReadFile(ctx, gateway.ReadRequest{Filename: fallback}); err2 == nil {
			f.data, err = data, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("failed to read dockerfile: %w", err)
	}
	f.source = llb.NewSourceMap(&tree, name, "Dockerfile", f.data)
	f.info.Filename, f.info.Data, f.info.Language = name, f.data, "Dockerfile"
	return f, nil
}

// openFile solves the tree that holds the Dockerfile.
func (b *build) openFile(ctx context.Context, tree llb.State) (*file, error) {
	def, err := tree.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := b.client.Solve(ctx, gateway.SolveRequest{Definition: def})
	if err != nil {
		return nil, fmt.Errorf("failed to resolve dockerfile: %w", err)
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	if ref == nil || len(def.Def) < 2 {
		return nil, errors.New("failed to read dockerfile: the build definition is empty")
	}
	return &file{
		ref:    ref,
		info:   &pb.SourceInfo{Definition: def},
		vertex: digest.FromBytes(def.Def[len(def.Def)-2]),
	}, nil
}

// withSources gives an error that carries lines of the Dockerfile the form that clients show. Of
// nested places the innermost comes first.
func (f *file) withSources(err error) error {
	var op *llb.PlaceError
	if errors.As(err, &op) {
		return status.WithSource(err, op.Info, op.Ranges...)
	}
	var places []*parser.Error
	for e := err; ; {
		var place *parser.Error
		if !errors.As(e, &place) {
			break
		}
		places = append(places, place)
		e = place.Err
	}
	for i := len(places) - 1; i >= 0; i-- {
		err = status.WithSource(err, f.info, lower.Ranges(places[i].Location)...)
	}
	return err
}

// maxWarned is how many bytes are sent for all warnings, about: each has the whole file with it.
const maxWarned = 64 << 20

// warn sends what the linter found. A daemon that cannot show warnings is not bothered, and one
// that fails to does not fail the build.
func (b *build) warn(ctx context.Context, linter *lint.Linter) {
	if !b.opts.warnings {
		return
	}
	warnings := linter.Warnings()
	if len(b.file.data) > 0 {
		warnings = warnings[:min(len(warnings), max(10, maxWarned/len(b.file.data)))]
	}
	for _, w := range warnings {
		err := b.client.Warn(ctx, b.file.vertex, w.String(), gateway.WarnOpt{
			Level:  1,
			Detail: [][]byte{[]byte(w.Rule.Description)},
			URL:    w.Rule.URL,
			Source: b.file.info,
			Ranges: lower.Ranges(w.Location),
		})
		if err != nil {
			return
		}
	}
}
