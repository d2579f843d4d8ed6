package solver

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/worker/source"
)

// What sources offer besides being sources: to tell what an op stands for without loading it.
type (
	imageResolver interface {
		ResolveMeta(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, mode string, env source.Env) (digest.Digest, []byte, error)
	}
	attestationResolver interface {
		ResolveAttestations(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, mode string, types []string, env source.Env) (*gatewaypb.AttestationChain, error)
	}
	httpResolver interface {
		ResolveHTTP(ctx context.Context, id source.Identifier, sum *gatewaypb.ChecksumRequest, env source.Env) (*gatewaypb.ResolveSourceHTTPResponse, error)
	}
	gitResolver interface {
		ResolveGit(ctx context.Context, id source.Identifier, objects bool, env source.Env) (*gatewaypb.ResolveSourceGitResponse, error)
	}
)

// maxResolves is how many sources the frontends of one build may have resolved: what is found out is
// kept to the end of the build, and told to those who watch it.
const maxResolves = 10_000

// ResolveSourceMeta resolves a source without loading it.
func (b *bridge) ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	if op == nil {
		return nil, status.New(codes.InvalidArgument, "source is required")
	}
	if b.job.resolves.Add(1) > maxResolves {
		return nil, status.New(codes.ResourceExhausted, fmt.Sprintf("the frontends of a build have at most %d sources resolved", maxResolves))
	}
	return b.resolve(ctx, op, opt)
}

// resolve resolves a source for whoever asks.
func (b *bridge) resolve(ctx context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	platform := b.job.solver.platform()
	if opt.Platform != nil {
		platform = platforms.Normalize(*opt.Platform)
	}
	op, err := b.permitted(ctx, op, platform, opt.SourcePolicies)
	if err != nil {
		return nil, err
	}
	src, id, err := b.job.solver.cfg.Worker.Sources.Parse(op, platform)
	if err != nil {
		return nil, err
	}
	scope := event.NewScope(b.job.feed, digest.FromString(op.Identifier+platforms.Format(platform)))
	blobs := &blob.Sources{}
	b.job.sched.AddBlobs(blobs)
	env := source.Env{Sessions: b.job.sessions, Scope: scope, Blobs: blobs, Memo: b.job.Memo()}

	meta := &gateway.SourceMeta{Op: op}
	var title string
	var resolve func() error
	switch src := src.(type) {
	case imageResolver:
		title = "resolve image config for " + op.Identifier
		resolve = func() error {
			dgst, config, err := src.ResolveMeta(ctx, op, platform, opt.ResolveMode, env)
			if opt.NoConfig {
				config = nil
			}
			meta.Image = &gateway.ImageMeta{Digest: dgst, Config: config}
			if chain, ok := src.(attestationResolver); err == nil && ok && opt.AttestationChain {
				meta.Image.Attestations, err = chain.ResolveAttestations(ctx, op, platform, opt.ResolveMode, opt.Attestations, env)
			}
			return err
		}
	case httpResolver:
		title = "resolve " + id.String()
		resolve = func() (err error) {
			meta.HTTP, err = src.ResolveHTTP(ctx, id, opt.HTTPChecksum, env)
			return err
		}
	case gitResolver:
		title = "resolve " + id.String()
		resolve = func() (err error) {
			meta.Git, err = src.ResolveGit(ctx, id, opt.GitObject, env)
			return err
		}
	default:
		return meta, nil
	}
	if opt.LogName != "" {
		title = opt.LogName
	}
	done := scope.Start(title, nil)
	if err := done(resolve()); err != nil {
		_, ref, _ := strings.Cut(id.String(), "://")
		return nil, fmt.Errorf("failed to resolve source metadata for %s: %w", ref, err)
	}
	b.asked.resolve(id, meta)
	return meta, nil
}
