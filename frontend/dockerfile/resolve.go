package dockerfile

import (
	"context"

	"golang.org/x/sync/errgroup"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// answerAll fetches what lowering asks for, in rounds: an image may have triggers that need more.
func (b *build) answerAll(ctx context.Context, l *lower.Build) error {
	for reqs := l.Requests(); len(reqs) > 0; reqs = l.Requests() {
		sources := make([]lower.Source, len(reqs))
		errs := make([]error, len(reqs))
		g, gctx := errgroup.WithContext(ctx)
		for i, req := range reqs {
			g.Go(func() error {
				sources[i], errs[i] = b.answer(gctx, req)
				return errs[i]
			})
		}
		if g.Wait() != nil {
			return failure(gctx, l, reqs, errs)
		}
		for i, req := range reqs {
			if err := l.Answer(req, sources[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// failure returns the error of the first request in the file that failed by itself.
func failure(ctx context.Context, l *lower.Build, reqs []*lower.Request, errs []error) error {
	first := -1
	for i, err := range errs {
		if err == nil {
			continue
		}
		if !isCanceled(ctx, err) {
			return l.Fail(reqs[i], err)
		}
		if first < 0 {
			first = i
		}
	}
	return l.Fail(reqs[first], errs[first])
}

func (b *build) answer(ctx context.Context, req *lower.Request) (lower.Source, error) {
	if req.Context != nil {
		return b.namedContext(ctx, req)
	}
	meta, err := b.client.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: pb.SchemeImage + req.Image}, gateway.ResolveOpt{
		Platform:    &req.Platform,
		LogName:     req.LogName,
		ResolveMode: string(b.opts.resolveMode),
	})
	if err != nil {
		return lower.Source{}, err
	}
	return imageSource(meta)
}
