package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
)

// instance is an image in one build.
type instance struct {
	src   *Source
	id    *Identifier
	env   source.Env
	reg   *puller
	image *manifest.Image
	// layers is where they are fetched from; here the record that has their tree, if any.
	layers blob.Source
	here   string
}

// Instance prepares an image for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	img, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no image", id)
	}
	return &instance{src: s, id: img, env: env, reg: s.puller(img, env)}, nil
}

// ResolveMeta resolves the reference of op to its digest and the config of the platform's image.
// mode takes the place of that in op if it is not empty.
func (s *Source) ResolveMeta(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, mode string, env source.Env) (digest.Digest, []byte, error) {
	p, err := s.pullerOf(op, platform, mode, env)
	if err != nil {
		return "", nil, err
	}
	img, err := p.pull(ctx)
	if err != nil {
		return "", nil, err
	}
	return img.Root.Digest, img.Config, nil
}

// pullerOf returns the puller of an op; a mode goes before that of the op.
func (s *Source) pullerOf(op *pb.SourceOp, platform ocispec.Platform, mode string, env source.Env) (*puller, error) {
	_, parsed, err := source.NewRegistry(s).Parse(op, platform)
	if err != nil {
		return nil, err
	}
	id, ok := parsed.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no image", parsed)
	}
	if mode != "" {
		if id.Mode, err = parseMode(mode); err != nil {
			return nil, err
		}
	}
	return s.puller(id, env), nil
}

// Key returns, in round 0, the key of the resolved digest with what else decides which layers are
// taken, and in round 1 that of the layers themselves, under which another image with the same
// layers matches. Both hold within the repository: who may read one repository must not get what
// was made of another by naming digests of it. If the layers are here and the repository has them,
// round 2 has a key that all repositories share.
func (i *instance) Key(ctx context.Context, n int) (source.Key, bool, error) {
	if n == 0 {
		if err := i.resolve(ctx); err != nil {
			return source.Key{}, false, err
		}
	}
	key := source.Key{Pin: i.image.Root.Digest.String()}
	switch n {
	case 0:
		value, err := json.Marshal(struct {
			Repository string
			Digest     digest.Digest
			ocispec.Platform
			LayerLimit int
		}{i.id.Ref.Name(), i.image.Root.Digest, i.id.Platform, i.id.LayerLimit})
		if err != nil {
			return source.Key{}, false, err
		}
		key.Value = "manifest:" + digest.FromBytes(value).String()
		return key, false, nil
	case 1:
		chain := i.image.ChainID()
		if chain == "" {
			key.Value = "chain:"
			return key, true, nil
		}
		key.Value = "chain:" + i.id.Ref.Name() + "@" + chain
		here, err := i.image.Here(ctx, i.src.cfg.Cache, i.layers)
		if ctx.Err() != nil {
			return source.Key{}, false, context.Cause(ctx)
		}
		if err != nil {
			// It has to have them when they are read; that is when this counts.
			log.G(ctx).WithError(err).WithField("image", i.id.Ref.String()).Debug("layers that are here are not used for an image")
		}
		i.here = here
		return key, here == "", nil
	default:
		// Not the chain: its parts are written in configs, and the key must be had only with
		// the layers themselves.
		key.Value = "layers:" + i.here
		return key, true, nil
	}
}

// resolve pulls manifest and config and offers the layers, so that a tree that is found in the
// cache but not here can be fetched.
func (i *instance) resolve(ctx context.Context) error {
	done := i.env.Scope.Step("resolve " + i.id.Ref.String())
	img, err := i.reg.pull(ctx)
	if err := done(err); err != nil {
		return err
	}
	if i.image, err = img.Limit(i.id.LayerLimit); err != nil {
		return err
	}
	i.layers = i.reg.repo.Source(i.env.Scope)
	if i.env.Blobs != nil {
		i.image.Offer(i.env.Blobs, i.layers)
	}
	return nil
}

// Fetch returns the tree of the layers, none of which is fetched.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	ref, err := i.image.Tree(ctx, i.src.cfg.Cache, cache.Description{
		Type: i.id.RecordType,
		Text: "pulled from " + i.id.Ref.String(),
	})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.id.Ref, err)
	}
	return ref, nil
}
