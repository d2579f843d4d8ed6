package op

import (
	"context"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/source"
)

const sourceKind = "buildkit.source.v0"

// sourceOp fetches a tree from outside.
type sourceOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.SourceOp

	// instance is set by the first Identify that succeeds; Run comes after it.
	instance source.Instance
}

// Static is false: a source has to be asked what it stands for.
func (o *sourceOp) Static() bool { return false }

// Identify resolves the source.
func (o *sourceOp) Identify(ctx context.Context, env *schedule.Env) (*schedule.Identity, error) {
	src, ident, err := o.f.worker.Sources.Parse(o.op, o.v.Platform)
	if err != nil {
		return nil, err
	}
	inst, err := src.Instance(ident, source.Env{Sessions: env, Scope: env.Scope, Blobs: env.Blobs, Memo: memoOf(env), Compat: o.v.Compat})
	if err != nil {
		return nil, err
	}
	id := &schedule.Identity{}
	for round, done := 0, false; !done; round++ {
		var k source.Key
		if k, done, err = inst.Key(ctx, round); err != nil {
			return nil, err
		}
		if k.Session {
			id.Unstored = true
		}
		if id.Pin == "" {
			id.Pin = k.Pin
		}
		if k.Value != "" {
			id.Keys = append(id.Keys, digest.FromString(sourceKind+"\x00"+ident.Scheme()+"\x00"+k.Value))
		}
	}
	if len(id.Keys) == 0 {
		id.Unstored = true
		id.Keys = []digest.Digest{o.v.Digest}
	}
	o.instance = inst
	return id, nil
}

// Run fetches the tree.
func (o *sourceOp) Run(ctx context.Context, _ *schedule.Env, _ []schedule.Result) ([]schedule.Result, error) {
	ref, err := o.instance.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	return []schedule.Result{NewTree(ref)}, nil
}

// memoOf returns what the build that wants the source has resolved so far; if there are several,
// that of one of them.
func memoOf(env *schedule.Env) *source.Memo {
	for _, v := range env.Values() {
		if b, ok := v.(interface{ Memo() *source.Memo }); ok {
			return b.Memo()
		}
	}
	return nil
}
