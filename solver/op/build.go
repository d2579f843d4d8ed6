package op

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/browse"
)

const buildKind = "buildkit.build.v0"

// buildOp builds a definition that a step has made.
type buildOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.BuildOp
}

// nester is a build in which definitions are built that its steps have made: its value in the
// scheduler says so.
type nester interface {
	// LoadNested checks a definition as if it stood in that with the build op, and makes its vertices
	// part of the build.
	LoadNested(ctx context.Context, build *graph.Vertex, def *pb.Definition) (Nested, error)
}

// Nested is a definition that has become part of a build.
type Nested interface {
	// Graph returns what was loaded.
	Graph() *graph.Graph
	// Tree makes it, or finds it. The caller releases it.
	Tree(ctx context.Context) (*cache.Ref, error)
}

// Static is true.
func (o *buildOp) Static() bool { return true }

// Identify describes the op by what it says, and by the policies that decide what its definition may
// be made of; the definition is part of the input.
func (o *buildOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	id, err := combineKey(buildKind, o.op, len(o.v.Inputs))
	if err == nil && o.v.Policies != "" {
		id.Keys[0] = digest.FromString(id.Keys[0].String() + "\x00" + o.v.Policies)
	}
	return id, err
}

// Run builds the definition. It takes no slot: the steps of the definition do.
func (o *buildOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	def, err := o.definition(ctx, env, inputs)
	if err != nil {
		return nil, err
	}
	n, err := nesterOf(env)
	if err != nil {
		return nil, err
	}
	nested, err := n.LoadNested(ctx, o.v, def)
	if err != nil {
		return nil, err
	}
	leave, err := o.f.nesting.enter(n, o.v.Digest, nested.Graph())
	if err != nil {
		return nil, err
	}
	defer leave()
	tree, err := nested.Tree(ctx)
	if err != nil {
		return nil, err
	}
	return []schedule.Result{NewTree(tree)}, nil
}

// nesterOf returns the build that the op is part of: the only one, as builds share none.
func nesterOf(env *schedule.Env) (nester, error) {
	for _, v := range env.Values() {
		if n, ok := v.(nester); ok {
			return n, nil
		}
	}
	return nil, errors.New("the build of the step has ended")
}

// definition reads the definition from the input that holds it.
func (o *buildOp) definition(ctx context.Context, env *schedule.Env, inputs []schedule.Result) (*pb.Definition, error) {
	in, name := o.op.Inputs[pb.LLBDefinition], pb.LLBDefinition
	if override := o.op.Attrs[pb.AttrBuildOpFilename]; override != "" {
		name = override
	}
	data, err := readTree(ctx, inputRef(inputs, in.GetInput()), env.Access(), name)
	if err != nil {
		return nil, fmt.Errorf("failed to read the definition to build: %w", err)
	}
	def := &pb.Definition{}
	if err := proto.Unmarshal(data, def); err != nil {
		return nil, fmt.Errorf("failed to parse the definition to build, %s: %w", name, err)
	}
	return def, nil
}

// readTree returns a file of a tree, which is no larger than a message may be.
func readTree(ctx context.Context, ref *cache.Ref, acc cache.Access, name string) (data []byte, err error) {
	if ref == nil {
		return nil, fmt.Errorf("open %s: the tree is empty", name)
	}
	m, err := ref.Mount(ctx, true, acc)
	if err != nil {
		return nil, err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	tree, err := browse.Open(dir, "")
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	return tree.ReadFile(name, nil)
}
