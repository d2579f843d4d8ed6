package dockerfile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

func imageSource(meta *gateway.SourceMeta) (lower.Source, error) {
	if meta.Image == nil {
		return lower.Source{}, errors.New("the daemon returned no metadata of the image")
	}
	return lower.Source{Digest: meta.Image.Digest, Config: meta.Image.Config}, nil
}

// registryImage is what the image ref was resolved to: another one if a policy of the build says so.
// If that puts files or a repository in its place, there is no configuration, and no digest either: the
// policy does the same to the reference when that is solved.
func registryImage(meta *gateway.SourceMeta, ref string) (lower.Source, error) {
	used := ref
	if meta.Op != nil {
		var ok bool
		if used, ok = strings.CutPrefix(meta.Op.Identifier, pb.SchemeImage); !ok {
			return lower.Source{}, nil
		}
	}
	src, err := imageSource(meta)
	if used != ref {
		src.Ref = used
	}
	return src, err
}

// namedContext fetches what replaces a stage or an image.
func (b *build) namedContext(ctx context.Context, req *lower.Request) (lower.Source, error) {
	name, spec := req.Context.Name, req.Context.Spec
	if lower.IsGitURL(spec) {
		state, err := b.remoteContext(req, spec)
		return lower.Source{State: state}, err
	}
	scheme, value, ok := strings.Cut(spec, ":")
	if !ok {
		return lower.Source{}, fmt.Errorf("invalid context specifier %s for %s", spec, name)
	}
	switch scheme {
	case imageScheme:
		return b.imageContext(ctx, req, strings.TrimPrefix(value, "//"))
	case "oci-layout":
		return b.layoutContext(ctx, req, strings.TrimPrefix(value, "//"))
	case "local":
		return b.localContext(ctx, req, value)
	case "input":
		return b.inputContext(ctx, name, value)
	case "git", "ssh", "http", "https":
		state, err := b.remoteContext(req, spec)
		return lower.Source{State: state}, err
	}
	return lower.Source{}, fmt.Errorf("unsupported context source %s for %s", scheme, name)
}

// askedAt ties an op to the lines that asked for the context.
func (b *build) askedAt(req *lower.Request) llb.ConstraintsOpt {
	return b.file.source.Location(lower.Ranges(req.Location())...)
}

func contextName(name, text string) string { return "[context " + name + "] " + text }

func (b *build) imageContext(ctx context.Context, req *lower.Request, value string) (lower.Source, error) {
	if value == "scratch" {
		return lower.Source{State: llb.Scratch()}, nil
	}
	named, err := reference.ParseNormalizedNamed(value)
	if err != nil {
		return lower.Source{}, fmt.Errorf("invalid context specifier %s for %s: %w", value, req.Context.Name, err)
	}
	ref := reference.TagNameOnly(named).String()
	meta, err := b.client.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: pb.SchemeImage + ref}, gateway.ResolveOpt{
		Platform:    &req.Platform,
		LogName:     contextName(req.Context.Name, "load metadata for "+ref),
		ResolveMode: string(b.opts.resolveMode),
	})
	if err != nil {
		return lower.Source{}, err
	}
	src, err := registryImage(meta, ref)
	if err != nil {
		return src, err
	}
	pinned := cmp.Or(src.Ref, ref)
	if !strings.Contains(pinned, "@") && src.Digest != "" {
		pinned += "@" + src.Digest.String()
	}
	src.State = llb.Image(pinned, llb.Platform(req.Platform), b.opts.resolveMode,
		llb.CustomName(contextName(req.Context.Name, ref)), b.askedAt(req))
	return src, nil
}

func (b *build) layoutContext(ctx context.Context, req *lower.Request, value string) (lower.Source, error) {
	store, dgst, ok := strings.Cut(value, "@")
	if !ok {
		return lower.Source{}, fmt.Errorf("oci-layout reference %q has no digest", value)
	}
	store, _, _ = strings.Cut(store, ":")
	name := req.Context.Name
	// The name of an image is only shown: what is read is the digest in the store.
	image, _, _ := strings.Cut(name, "::")
	if ref, err := reference.ParseNormalizedNamed(image); err == nil {
		image = reference.TrimNamed(ref).Name()
	}
	ref := image + "@" + dgst
	op := &pb.SourceOp{Identifier: pb.SchemeOCILayout + ref, Attrs: map[string]string{pb.AttrOCIStore: store}}
	if b.opts.sessionID != "" {
		op.Attrs[pb.AttrOCISession] = b.opts.sessionID
	}
	meta, err := b.client.ResolveSourceMeta(ctx, op, gateway.ResolveOpt{
		Platform: &req.Platform,
		LogName:  contextName(name, "load metadata for "+ref),
	})
	if err != nil {
		return lower.Source{}, err
	}
	src, err := imageSource(meta)
	if err != nil {
		return src, err
	}
	src.State = llb.OCILayout(ref, llb.Platform(req.Platform), llb.OCIStore(b.opts.sessionID, store),
		llb.CustomName(contextName(name, "OCI load from client")), b.askedAt(req))
	return src, nil
}

func (b *build) localContext(ctx context.Context, req *lower.Request, local string) (lower.Source, error) {
	name := req.Context.Name
	ignored, err := b.loadLocalIgnore(ctx, local, contextName(name, "load "+ignoreName), true)
	if err != nil {
		return lower.Source{}, err
	}
	opts := []llb.LocalOption{b.askedAt(req)}
	if ignored != nil && len(ignored.patterns) > 0 {
		opts = append(opts, llb.ExcludePatterns(ignored.patterns...))
	}
	return lower.Source{State: b.localTree(local, "context:"+name+"-"+local, contextName(name, "load from client"), opts...)}, nil
}

func (b *build) inputContext(ctx context.Context, name, input string) (lower.Source, error) {
	inputs, err := b.client.Inputs(ctx)
	if err != nil {
		return lower.Source{}, err
	}
	def, ok := inputs[input]
	if !ok {
		return lower.Source{}, fmt.Errorf("invalid input %s for %s", input, name)
	}
	state, err := llb.FromDefinition(def)
	if err != nil {
		return lower.Source{}, fmt.Errorf("invalid input %s for %s: %w", input, name, err)
	}
	src := lower.Source{State: state}
	if text := b.opts.raw["input-metadata:"+input]; text != "" {
		var meta map[string][]byte
		if err := json.Unmarshal([]byte(text), &meta); err != nil {
			return src, fmt.Errorf("invalid metadata of input %s: %w", input, err)
		}
		src.Config = meta[keyConfig]
	}
	return src, nil
}

// remoteContext is a repository or a file at a url, which keeps its name.
func (b *build) remoteContext(req *lower.Request, url string) (llb.State, error) {
	title, at := llb.CustomName(contextName(req.Context.Name, giturl.Redact(url))), b.askedAt(req)
	if !lower.IsGitURL(url) {
		return llb.HTTP(url, title, at), nil
	}
	g, err := lower.ParseGitURL(url)
	if err != nil {
		return llb.State{}, err
	}
	return g.State(title, at), nil
}
