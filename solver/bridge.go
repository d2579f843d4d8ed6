package solver

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	gwserver "github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/policy"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// bridge is the daemon as one frontend of a job sees it.
type bridge struct {
	job    *job
	asked  *asked
	opts   map[string]string
	inputs map[string]*pb.Definition
	// policies are those of the job and of the frontends around this one; nil are the job's alone.
	policies *policy.Set
}

var _ gateway.Client = (*bridge)(nil)

// Solve asks for a result. References of it are lazy.
func (b *bridge) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	res, err := b.solve(ctx, req)
	if err != nil || !req.Evaluate {
		return res, err
	}
	return res, res.EachRef(func(_ string, ref gateway.Reference) error { return ref.Evaluate(ctx) })
}

func (b *bridge) solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	for _, im := range req.CacheImports {
		b.job.refuseImport(RemoteCache(im))
	}
	policies, err := b.sourcePolicies(req.SourcePolicies)
	if err != nil {
		return nil, err
	}
	definition := req.Definition != nil && req.Definition.Def != nil
	switch {
	case definition && req.Frontend != "":
		return nil, status.New(codes.InvalidArgument, errBothGiven.Error())
	case definition:
		ref, err := b.load(ctx, req.Definition, policies)
		if err != nil {
			return nil, err
		}
		return &gateway.Result{Ref: ref}, nil
	case req.Frontend != "":
		return b.frontend(ctx, req, policies)
	}
	return &gateway.Result{}, nil
}

// load makes a definition part of the job, as a result of what the frontend was asked.
func (b *bridge) load(ctx context.Context, def *pb.Definition, policies *policy.Set) (*reference, error) {
	g, edge, err := b.job.load(ctx, def, policies)
	if err != nil {
		return nil, err
	}
	b.asked.load(edge)
	b.job.noteDefinition(def, b.asked)
	return &reference{job: b.job, edge: edge, def: def, built: g.Definition, asked: b.asked}, nil
}

// load checks a definition and makes its vertices part of the job.
func (j *job) load(ctx context.Context, def *pb.Definition, policies *policy.Set) (*graph.Graph, schedule.Edge, error) {
	g, err := graph.Load(def, graph.Opt{
		Platform:     j.solver.platform(),
		Capabilities: gwserver.CheckLLB,
		Amend:        j.amend(ctx, policies),
		Policies:     policies.ID(),
		Compat:       j.req.Compatibility,
	})
	if err != nil {
		return nil, schedule.Edge{}, refusal(err)
	}
	if err := j.admit(g); err != nil {
		return nil, schedule.Edge{}, err
	}
	j.keepPolicies(policies)
	edge, err := j.sched.Load(ctx, g)
	return g, edge, err
}

func (b *bridge) frontend(ctx context.Context, req gateway.SolveRequest, policies *policy.Set) (*gateway.Result, error) {
	fe := b.job.solver.cfg.Frontends[req.Frontend]
	if fe == nil {
		return nil, status.New(codes.InvalidArgument, "invalid frontend: "+req.Frontend)
	}
	for name, def := range req.FrontendInputs {
		if def == nil {
			return nil, status.New(codes.InvalidArgument, fmt.Sprintf("invalid nil input definition to definition op: %s", name))
		}
	}
	b.job.noteFrontend(req.Frontend, req.FrontendOpt)
	own := &asked{frontend: req.Frontend, opts: req.FrontendOpt, inputs: req.FrontendInputs, parent: b.asked}
	res, err := fe(ctx, &bridge{job: b.job, asked: own, opts: req.FrontendOpt, inputs: req.FrontendInputs, policies: policies})
	if err != nil {
		return nil, status.WithFrontend(err, req.Frontend, req.FrontendOpt["source"])
	}
	if res == nil {
		res = &gateway.Result{}
	}
	return res, nil
}

// BuildOpts tells what the build was asked for.
func (b *bridge) BuildOpts() gateway.BuildOpts {
	w := b.job.solver.cfg.Worker
	return gateway.BuildOpts{
		Opts:      b.opts,
		SessionID: b.job.req.Session,
		Workers:   []gateway.WorkerInfo{{ID: w.ID, Labels: w.Labels, Platforms: w.Platforms.List()}},
		Product:   "buildkit",
		LLBCaps:   gwserver.LLBCaps(),
		Caps:      gwserver.Caps(),
	}
}

// Inputs returns the definitions given to the frontend.
func (b *bridge) Inputs(context.Context) (map[string]*pb.Definition, error) { return b.inputs, nil }

// Warn tells the listeners of the build of a warning.
func (b *bridge) Warn(_ context.Context, dgst digest.Digest, msg string, opt gateway.WarnOpt) error {
	if err := b.job.warnings.take(msg, opt); err != nil {
		return err
	}
	event.NewScope(b.job.feed, dgst).Warn(event.Warning{
		Level: opt.Level, Short: []byte(msg), Detail: opt.Detail, URL: opt.URL, Source: opt.Source, Ranges: opt.Ranges,
	})
	return nil
}

// platform returns the platform of what names none.
func (s *Solver) platform() ocispec.Platform { return s.cfg.Worker.Platforms.Default() }
