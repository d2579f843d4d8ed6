package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

// recordType is what disk usage shows for the trees of frontends.
const recordType = "frontend"

// image is a frontend before it runs.
type image struct {
	// name is as it was asked for.
	name string
	tree llb.State
	// digest is that of the image; empty for other trees.
	digest digest.Digest
	// config is empty for trees that have none.
	config   ocispec.ImageConfig
	platform ocispec.Platform
}

// resolve finds what source stands for: a named context of the build, or an image.
func (f *Frontend) resolve(ctx context.Context, c client.Client, source string) (*image, error) {
	img := &image{name: source, platform: defaultPlatform(c.BuildOpts())}
	named, ok, err := dockerfile.NamedContext(ctx, c, source, img.platform)
	if err != nil {
		return nil, err
	}
	if ok {
		// Whoever may choose the context may choose what runs.
		if err := f.checkAllowed(named.Image, source); err != nil {
			return nil, err
		}
		img.tree, img.digest = named.State, named.Digest
		return img, img.setConfig(named.Config)
	}
	return img, f.resolveImage(ctx, c, img)
}

func (f *Frontend) resolveImage(ctx context.Context, c client.Client, img *image) error {
	ref, err := reference.ParseNormalizedNamed(img.name)
	if err != nil {
		return status.WithCode(fmt.Errorf("invalid frontend image %q: %w", img.name, err), codes.InvalidArgument)
	}
	if err := f.checkAllowed(ref.String(), img.name); err != nil {
		return err
	}
	ref = reference.TagNameOnly(ref)
	meta, err := c.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: pb.SchemeImage + ref.String()}, client.ResolveOpt{Platform: &img.platform})
	if err != nil {
		return err
	}
	resolved, ok := strings.CutPrefix(meta.Op.GetIdentifier(), pb.SchemeImage)
	if !ok || meta.Image == nil {
		return fmt.Errorf("frontend %s resolves to %s, which is not an image", img.name, meta.Op.GetIdentifier())
	}
	if resolved, err = pin(resolved, meta.Image.Digest); err != nil {
		return err
	}
	img.tree = llb.Image(resolved, llb.RecordType(recordType), llb.Platform(img.platform))
	img.digest = meta.Image.Digest
	return img.setConfig(meta.Image.Config)
}

// pin adds the digest to a reference that has none.
func pin(name string, dgst digest.Digest) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", name, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return name, nil
	}
	pinned, err := reference.WithDigest(ref, dgst)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", name, err)
	}
	return pinned.String(), nil
}

func (img *image) setConfig(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var decoded ocispec.Image
	if err := json.Unmarshal(data, &decoded); err != nil {
		return fmt.Errorf("config of frontend %s: %w", img.name, err)
	}
	img.config = decoded.Config
	return nil
}

// checkAllowed refuses images outside of the allowed repositories, and everything that is no image
// if there are any. ref is empty for what is no image.
func (f *Frontend) checkAllowed(ref, source string) error {
	if len(f.cfg.AllowedRepositories) == 0 {
		return nil
	}
	if name, err := repository(ref); err == nil {
		allowed := slices.ContainsFunc(f.cfg.AllowedRepositories, func(a string) bool {
			a, err := repository(a)
			return err == nil && a == name
		})
		if allowed {
			return nil
		}
	}
	return status.New(codes.PermissionDenied, fmt.Sprintf("'%s' is not an allowed gateway source", source))
}

// repository returns the full name of an image, without tag or digest.
func repository(ref string) (string, error) {
	if ref == "" {
		return "", errors.New("not an image")
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	return named.Name(), nil
}

// defaultPlatform is that of the daemon, which runs the program.
func defaultPlatform(bo client.BuildOpts) ocispec.Platform {
	if len(bo.Workers) > 0 && len(bo.Workers[0].Platforms) > 0 {
		return bo.Workers[0].Platforms[0]
	}
	return platforms.DefaultSpec()
}
