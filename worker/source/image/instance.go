package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source"
)

// instance is an image in one build.
type instance struct {
	src   *Source
	id    *Identifier
	env   source.Env
	reg   *puller
	image *pulled
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
	_, parsed, err := source.NewRegistry(s).Parse(op, platform)
	if err != nil {
		return "", nil, err
	}
	id, ok := parsed.(*Identifier)
	if !ok {
		return "", nil, fmt.Errorf("%s is no image", parsed)
	}
	if mode != "" {
		if id.Mode, err = parseMode(mode); err != nil {
			return "", nil, err
		}
	}
	img, err := s.puller(id, env).pull(ctx)
	if err != nil {
		return "", nil, err
	}
	return img.root.Digest, img.rawConfig, nil
}

// Key returns, in round 0, the key of the resolved digest with what else decides which layers are
// taken, and in round 1 that of the layers themselves, under which the same layers from another
// repository match.
func (i *instance) Key(ctx context.Context, n int) (source.Key, bool, error) {
	if n > 0 {
		return source.Key{Value: i.chainKey(), Pin: i.image.root.Digest.String()}, true, nil
	}
	if err := i.resolve(ctx); err != nil {
		return source.Key{}, false, err
	}
	value, err := json.Marshal(struct {
		Digest digest.Digest
		ocispec.Platform
		LayerLimit int
	}{i.image.root.Digest, i.id.Platform, i.id.LayerLimit})
	if err != nil {
		return source.Key{}, false, err
	}
	return source.Key{Value: "manifest:" + digest.FromBytes(value).String(), Pin: i.image.root.Digest.String()}, false, nil
}

// resolve pulls manifest and config and offers the layers, so that a tree that is found in the
// cache but not here can be fetched.
func (i *instance) resolve(ctx context.Context) error {
	done := i.env.Scope.Step("resolve " + i.id.Ref.String())
	img, err := i.reg.pull(ctx)
	if err := done(err); err != nil {
		return err
	}
	if limit := i.id.LayerLimit; limit > 0 {
		if limit > len(img.layers) {
			return fmt.Errorf("layer limit %d is greater than the number of layers in the image %d", limit, len(img.layers))
		}
		limited := *img
		limited.layers, limited.diffIDs = img.layers[:limit], img.diffIDs[:limit]
		img = &limited
	}
	i.image = img
	if i.env.Blobs != nil {
		layers := i.reg.repo.Source(i.env.Scope)
		for _, l := range img.layers {
			i.env.Blobs.Add(l.Digest, layers)
		}
	}
	return nil
}

// chainKey identifies the layers; it is constant for an image without any.
func (i *instance) chainKey() string {
	if len(i.image.diffIDs) == 0 {
		return "chain:"
	}
	return "chain:" + identity.ChainID(i.image.diffIDs).String()
}

// Fetch returns the tree of the layers, none of which is fetched.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	var top *cache.Ref
	for n, l := range i.image.layers {
		ref, err := i.src.cfg.Cache.AddBlob(ctx, top, l, i.image.diffIDs[n], cache.Description{
			Type: i.id.RecordType,
			Text: "pulled from " + i.id.Ref.String(),
		})
		if rerr := top.Release(ctx); err == nil {
			err = rerr
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s of %s: %w", l.Digest, i.id.Ref, err)
		}
		top = ref
	}
	return top, nil
}
