package ocilayout

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
)

// instance is an image in one build.
type instance struct {
	src   *Source
	id    *Identifier
	env   source.Env
	store *Store

	image *manifest.Image
	// here is the record that has the tree of the layers, if any.
	here string
}

// Instance prepares an image for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	img, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no image of an OCI layout", id)
	}
	return &instance{src: s, id: img, env: env, store: NewStore(s.cfg.Sessions, img.Session, img.Store, env)}, nil
}

// ResolveMeta returns the digest of op and the config of the platform's image. The mode has no
// meaning here: there is one place to read from.
func (s *Source) ResolveMeta(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, _ string, env source.Env) (digest.Digest, []byte, error) {
	_, parsed, err := source.NewRegistry(s).Parse(op, platform)
	if err != nil {
		return "", nil, err
	}
	id, ok := parsed.(*Identifier)
	if !ok {
		return "", nil, fmt.Errorf("%s is no image of an OCI layout", parsed)
	}
	img, err := NewStore(s.cfg.Sessions, id.Session, id.Store, env).image(ctx, id)
	if err != nil {
		return "", nil, err
	}
	return img.Root.Digest, img.Config, nil
}

// Key returns, in round 0, the key of the digest with what else decides which layers are taken. If
// the layers are here, round 1 has the one under which they match whatever they came from. There
// is no key for a client that names layers which are here and which its store does not have.
func (i *instance) Key(ctx context.Context, n int) (source.Key, bool, error) {
	if n > 0 {
		return source.Key{Value: "layers:" + i.here, Pin: i.id.Ref.Digest().String()}, true, nil
	}
	if err := i.resolve(ctx); err != nil {
		return source.Key{}, false, err
	}
	value, err := json.Marshal(struct {
		Digest digest.Digest
		ocispec.Platform
		LayerLimit int
	}{i.image.Root.Digest, i.id.Platform, i.id.LayerLimit})
	if err != nil {
		return source.Key{}, false, err
	}
	return source.Key{
		Value: "layout:" + digest.FromBytes(value).String(), Pin: i.image.Root.Digest.String(),
	}, i.here == "", nil
}

// resolve reads manifest and config and offers the layers.
func (i *instance) resolve(ctx context.Context) error {
	done := i.env.Scope.Step("resolve " + i.id.Ref.String())
	img, err := i.store.image(ctx, i.id)
	if err := done(err); err != nil {
		return err
	}
	if i.image, err = img.Limit(i.id.LayerLimit); err != nil {
		return err
	}
	if i.env.Blobs != nil {
		i.image.Offer(i.env.Blobs, i.store)
	}
	if i.here, err = i.image.Here(ctx, i.src.cfg.Cache, i.store); err != nil {
		return fmt.Errorf("oci-layout %s: %w", i.id.Ref, err)
	}
	return nil
}

// Fetch returns the tree of the layers, none of which is fetched.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	ref, err := i.image.Tree(ctx, i.src.cfg.Cache, cache.Description{Text: "pulled from " + i.id.Ref.String()})
	if err != nil {
		return nil, fmt.Errorf("oci-layout %s: %w", i.id.Ref, err)
	}
	return ref, nil
}
