package dockerfile

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// answerAll fetches what lowering asks for, in rounds: an image may have triggers that need more.
func (b *build) answerAll(ctx context.Context, l *lower.Build) error {
	for reqs := l.Requests(); len(reqs) > 0; reqs = l.Requests() {
		sources := make([]lower.Source, len(reqs))
		errs := make([]error, len(reqs))
		each(ctx, len(reqs), func(ctx context.Context, i int) error {
			sources[i], errs[i] = b.answer(ctx, reqs[i])
			return errs[i]
		})
		if i := culprit(errs); i >= 0 {
			return l.Fail(reqs[i], errs[i])
		}
		for i, req := range reqs {
			if err := l.Answer(req, sources[i]); err != nil {
				return err
			}
		}
	}
	return nil
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
	return registryImage(meta, req.Image)
}
