package llb

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// ImageOption changes how an image is read.
type ImageOption interface {
	applyImage(*imageInfo)
}

type imageInfo struct {
	sourceInfo
	resolver    ImageMetaResolver
	pin         bool
	resolveMode ResolveMode
}

type imageOpt func(*imageInfo)

func (o imageOpt) applyImage(s *imageInfo) { o(s) }

// Image reads the file tree of an image. A name without a tag means the tag latest.
func Image(name string, opts ...ImageOption) State {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return failed(fmt.Errorf("image %q: %w", name, err))
	}
	ref = reference.TagNameOnly(ref)
	var info imageInfo
	for _, o := range opts {
		o.applyImage(&info)
	}
	info.need(pb.CapSourceImage)
	s := imageState(ref.String(), info.sourceInfo)
	if info.resolver == nil {
		return s
	}
	return s.Async(func(ctx context.Context, s State, c Constraints) (State, error) {
		platform := info.constraints.platform
		if platform == nil {
			platform = c.Platform
		}
		meta, err := info.resolver.ResolveImageConfig(ctx, ref.String(), ImageResolveOpt{
			Platform: platform,
			Mode:     info.resolveMode,
		})
		if err != nil {
			return State{}, err
		}
		resolved := meta.Ref
		if resolved == "" {
			resolved = ref.String()
		}
		if info.pin && meta.Digest != "" {
			if resolved, err = pinned(resolved, meta.Digest); err != nil {
				return State{}, err
			}
		}
		return imageState(resolved, info.sourceInfo).WithImageConfig(meta.Config)
	})
}

func imageState(ref string, info sourceInfo) State {
	return (&sourceOp{identifier: pb.SchemeImage + ref, info: info, perPlatform: true}).state()
}

func pinned(name string, dgst digest.Digest) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", name, err)
	}
	ref, err = reference.WithDigest(reference.TagNameOnly(ref), dgst)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", name, err)
	}
	return ref.String(), nil
}

// ImageMetaResolver looks an image up while a graph is marshalled.
type ImageMetaResolver interface {
	ResolveImageConfig(ctx context.Context, ref string, opt ImageResolveOpt) (ImageMeta, error)
}

// ImageResolveOpt says how an image is looked up.
type ImageResolveOpt struct {
	// Platform picks from an image of several; nil leaves the choice to the resolver.
	Platform *ocispec.Platform
	Mode     ResolveMode
}

// ImageMeta is what an ImageMetaResolver found.
type ImageMeta struct {
	// Ref is the reference to use instead of the one asked for; empty keeps that.
	Ref    string
	Digest digest.Digest
	// Config is the image configuration as JSON.
	Config []byte
}

// WithMetaResolver makes the State inherit environment, working directory, user and platform
// from the configuration of the image.
func WithMetaResolver(r ImageMetaResolver) ImageOption {
	return imageOpt(func(s *imageInfo) { s.resolver = r })
}

// PinDigest adds the digest that the resolver of WithMetaResolver found to the reference.
func PinDigest() ImageOption { return imageOpt(func(s *imageInfo) { s.pin = true }) }

// ResolveMode says where an image is looked for. It is an option of Image.
type ResolveMode string

// Modes of resolving: as the daemon prefers, always from the registry, preferably from the local
// image store.
const (
	ResolveDefault     ResolveMode = "default"
	ResolveForcePull   ResolveMode = "pull"
	ResolvePreferLocal ResolveMode = "local"
)

func (m ResolveMode) applyImage(s *imageInfo) {
	s.resolveMode = m
	if m != ResolveDefault && m != "" {
		s.set(pb.AttrImageResolveMode, string(m), pb.CapSourceImageResolveMode)
	}
}

// ParseResolveMode returns the mode of a name; the empty name is the default mode.
func ParseResolveMode(name string) (ResolveMode, error) {
	switch m := ResolveMode(name); m {
	case "":
		return ResolveDefault, nil
	case ResolveDefault, ResolveForcePull, ResolvePreferLocal:
		return m, nil
	}
	return "", fmt.Errorf("invalid image-resolve-mode: %s", name)
}

// RecordType is the kind that the cache records of an image or blob get, such as "internal".
func RecordType(kind string) interface {
	ImageOption
	BlobOption
} {
	return recordType(kind)
}

type recordType string

func (t recordType) applyImage(s *imageInfo) { t.applyBlob(&s.sourceInfo) }
func (t recordType) applyBlob(s *sourceInfo) { s.set(pb.AttrImageRecordType, string(t), "") }

// ImageLayerLimit reads only the first n layers. n is positive.
func ImageLayerLimit(n int) ImageOption {
	return imageOpt(func(s *imageInfo) {
		s.set(pb.AttrImageLayerLimit, strconv.Itoa(n), pb.CapSourceImageLayerLimit)
	})
}

// ImageChecksum fails the build if the image has another digest.
func ImageChecksum(dgst digest.Digest) ImageOption {
	return imageOpt(func(s *imageInfo) {
		s.set(pb.AttrImageChecksum, string(dgst), pb.CapSourceImageChecksum)
	})
}

// WithImageConfig returns s with environment, working directory, user and platform of an image
// configuration, given as JSON.
func (s State) WithImageConfig(config []byte) (State, error) {
	var img ocispec.Image
	if err := json.Unmarshal(config, &img); err != nil {
		return State{}, fmt.Errorf("parse image config: %w", err)
	}
	for _, kv := range img.Config.Env {
		if k, v, _ := strings.Cut(kv, "="); k != "" {
			s = s.AddEnv(k, v)
		}
	}
	if img.Config.WorkingDir != "" {
		s = s.Dir(img.Config.WorkingDir)
	}
	if img.Config.User != "" {
		s = s.User(img.Config.User)
	}
	if img.OS != "" && img.Architecture != "" {
		s = s.Platform(img.Platform)
	}
	return s, nil
}
