package dockerfile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

// daemon is a gateway client without a daemon: locals are maps, images have a configuration and
// nothing else, and what is solved is kept.
type daemon struct {
	opts gateway.BuildOpts
	// frontend is what golden tests run.
	frontend gateway.BuildFunc
	// locals are files by name of the local and path.
	locals map[string]map[string]string
	// images are configurations by reference.
	images map[string]string
	inputs map[string]*pb.Definition

	mu sync.Mutex
	// solved are the definitions that are not just a local, requests those for other frontends.
	solved   []*pb.Definition
	requests []gateway.SolveRequest
	// failure is how those end.
	failure  error
	resolved []string
	warnings []string
}

func newDaemon(file string, opts map[string]string) *daemon {
	d := &daemon{
		frontend: dockerfile.Build,
		opts: gateway.BuildOpts{
			Opts:      opts,
			SessionID: "session",
			Workers: []gateway.WorkerInfo{{Platforms: []ocispec.Platform{
				{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"},
			}}},
			LLBCaps: map[string]bool{},
			Caps:    map[string]bool{"gateway.warnings": true},
		},
		locals: map[string]map[string]string{"dockerfile": {"Dockerfile": file}, "context": {}},
		images: map[string]string{
			"docker.io/library/busybox:latest": `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":null}}`,
		},
	}
	return d
}

// digestOf makes up the digest of an image.
func digestOf(ref string) digest.Digest { return digest.FromString(ref) }

func (d *daemon) BuildOpts() gateway.BuildOpts { return d.opts }

func (d *daemon) Inputs(context.Context) (map[string]*pb.Definition, error) { return d.inputs, nil }

func (d *daemon) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, errors.New("no containers")
}

func (d *daemon) Warn(_ context.Context, _ digest.Digest, msg string, _ gateway.WarnOpt) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, msg)
	return nil
}

func (d *daemon) ResolveSourceMeta(_ context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resolved = append(d.resolved, opt.LogName)
	_, ref, _ := strings.Cut(op.Identifier, "://")
	config, ok := d.images[ref]
	if !ok {
		return nil, fmt.Errorf("failed to resolve source metadata for %s: not found", ref)
	}
	return &gateway.SourceMeta{Op: op, Image: &gateway.ImageMeta{Digest: digestOf(ref), Config: []byte(config)}}, nil
}

func (d *daemon) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.Frontend != "" {
		d.requests = append(d.requests, req)
		return &gateway.Result{}, d.failure
	}
	if len(req.Definition.GetDef()) == 0 {
		d.solved = append(d.solved, req.Definition)
		return &gateway.Result{}, nil
	}
	ref := &tree{def: req.Definition}
	if name, ok := d.local(req.Definition); ok {
		ref.files = d.locals[name]
	} else {
		d.solved = append(d.solved, req.Definition)
	}
	return &gateway.Result{Ref: ref}, nil
}

// local returns the name of the local that a definition consists of.
func (d *daemon) local(def *pb.Definition) (string, bool) {
	if len(def.Def) != 2 {
		return "", false
	}
	var op pb.Op
	if err := proto.Unmarshal(def.Def[0], &op); err != nil {
		return "", false
	}
	name, ok := strings.CutPrefix(op.GetSource().GetIdentifier(), pb.SchemeLocal)
	return name, ok
}

// tree is a reference to files in memory.
type tree struct {
	gateway.Reference
	def   *pb.Definition
	files map[string]string
}

func (t *tree) Definition() *pb.Definition { return t.def }

func (t *tree) ReadFile(_ context.Context, req gateway.ReadRequest) ([]byte, error) {
	data, ok := t.files[path.Clean(req.Filename)]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: req.Filename, Err: fs.ErrNotExist}
	}
	return []byte(data), nil
}

func (t *tree) ReadDir(_ context.Context, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	var out []*fstypes.Stat
	for name := range t.files {
		if path.Dir("/"+name) == path.Join("/", req.Path) {
			out = append(out, &fstypes.Stat{Path: path.Base(name)})
		}
	}
	slices.SortFunc(out, func(a, b *fstypes.Stat) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}
