package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
)

// The scanner protocol: what a scanner finds in its container, and where it writes statements. See
// https://github.com/moby/buildkit/blob/master/docs/attestations/sbom-protocol.md.
const (
	dirOut    = "/run/out/"
	dirCore   = "/run/src/core/"
	dirExtras = "/run/src/extras/"
	// coreName is the name of what is scanned as the result; it begins the names of the others.
	coreName = "sbom"

	envPrefix      = "BUILDKIT_SCAN_"
	envDestination = envPrefix + "DESTINATION"
	envSource      = envPrefix + "SOURCE"
	envExtras      = envPrefix + "SOURCE_EXTRAS"
)

// Keys of the metadata of attestations, and the reason for these.
const (
	keyReason  = "reason"
	keyCore    = "sbom-core"
	reasonSBOM = "sbom"
)

// maxConfig is how long the entry point of a scanner may be, in bytes: it becomes part of the build.
const maxConfig = 1 << 20

// Options say how a scanner is found and run.
type Options struct {
	ResolveMode llb.ResolveMode
	// IgnoreCache scans even what was scanned before.
	IgnoreCache bool
}

// Scanner is a scanner whose image is known.
type Scanner struct {
	client   gateway.Client
	name     string
	image    llb.State
	args     []string
	options  Options
	platform ocispec.Platform
}

// Resolve looks the image of the scanner up. It runs on the platform of the daemon whatever it scans.
func (s *SBOM) Resolve(ctx context.Context, c gateway.Client, opt Options) (*Scanner, error) {
	platform := platforms.Normalize(platforms.DefaultSpec())
	if w := c.BuildOpts().Workers; len(w) > 0 && len(w[0].Platforms) > 0 {
		platform = platforms.Normalize(w[0].Platforms[0])
	}
	meta, err := c.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: pb.SchemeImage + s.Generator}, gateway.ResolveOpt{
		Platform:    &platform,
		LogName:     "[internal] load metadata for " + s.Generator,
		ResolveMode: string(opt.ResolveMode),
	})
	if err != nil {
		return nil, fmt.Errorf("sbom generator %s: %w", s.Generator, err)
	}
	if meta.Image == nil {
		return nil, fmt.Errorf("sbom generator %s: the daemon returned no metadata of the image", s.Generator)
	}
	used := s.Generator
	if meta.Op != nil {
		var ok bool
		if used, ok = strings.CutPrefix(meta.Op.Identifier, pb.SchemeImage); !ok {
			return nil, fmt.Errorf("sbom generator %s is replaced by what is not an image", s.Generator)
		}
	}
	if d := meta.Image.Digest; d != "" && !strings.Contains(used, "@") {
		used += "@" + d.String()
	}
	out := &Scanner{client: c, name: s.Generator, options: opt, platform: platform}
	out.image = llb.Image(used, llb.Platform(platform), opt.ResolveMode)
	return out, out.configure(meta.Image.Config, s.Params)
}

// configure takes the command, the environment and the directory from the configuration of the image.
func (s *Scanner) configure(config []byte, params map[string]string) error {
	var img ocispec.Image
	if err := json.Unmarshal(config, &img); err != nil {
		return fmt.Errorf("sbom generator %s: failed to parse image config: %w", s.name, err)
	}
	s.args = slices.Concat(img.Config.Entrypoint, img.Config.Cmd)
	if len(s.args) == 0 {
		return fmt.Errorf("scanner %s does not have cmd", s.name)
	}
	if len(config) > maxConfig {
		return fmt.Errorf("sbom generator %s: image config has more than %d bytes", s.name, maxConfig)
	}
	for _, kv := range img.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		s.image = s.image.AddEnv(k, v)
	}
	if dir := img.Config.WorkingDir; dir != "" {
		s.image = s.image.Dir(dir)
	}
	for _, k := range slices.Sorted(maps.Keys(params)) {
		s.image = s.image.AddEnv(envPrefix+k, params[k])
	}
	return nil
}

// Tree is what a scan looks at. Its name is that of the document about it.
type Tree struct {
	Name       string
	Definition *pb.Definition
}

// Attest has a part of a result scanned, and beside it the stages and contexts that it was made of.
// Nothing is executed before the attestation is read.
func (s *Scanner) Attest(ctx context.Context, platform ocispec.Platform, core *pb.Definition, extras []Tree) (gateway.Attestation, error) {
	out, err := s.scan(platform, core, extras)
	if err != nil {
		return gateway.Attestation{}, fmt.Errorf("sbom generator %s: %w", s.name, err)
	}
	def, err := out.Marshal(ctx, llb.Platform(s.platform))
	if err != nil {
		return gateway.Attestation{}, err
	}
	res, err := s.client.Solve(ctx, gateway.SolveRequest{Definition: def})
	if err != nil {
		return gateway.Attestation{}, err
	}
	ref, err := res.SingleRef()
	if err == nil && ref == nil {
		err = errors.New("the scan has no result")
	}
	return gateway.Attestation{
		Kind:          gatewaypb.AttestationKind_Bundle,
		Ref:           ref,
		PredicateType: PredicateSPDX,
		Metadata:      map[string][]byte{keyReason: []byte(reasonSBOM), keyCore: []byte(coreName)},
	}, err
}

// scan returns the tree that a scanner writes.
func (s *Scanner) scan(platform ocispec.Platform, core *pb.Definition, extras []Tree) (llb.State, error) {
	mounted, err := llb.FromDefinition(core)
	if err != nil {
		return llb.State{}, err
	}
	opts := []llb.RunOption{
		llb.Args(s.args...),
		llb.AddEnv(envDestination, dirOut),
		llb.AddEnv(envSource, path.Join(dirCore, coreName)),
		llb.CustomNamef("[%s] generating sbom using %s", platforms.Format(platforms.Normalize(platform)), s.name),
		llb.AddMount("/tmp", llb.Scratch(), llb.Tmpfs(0)),
		llb.AddMount(path.Join(dirCore, coreName), mounted, llb.Readonly()),
		llb.AddMount(dirOut, llb.Scratch()),
	}
	if s.options.IgnoreCache {
		opts = append(opts, llb.IgnoreCache())
	}
	if len(extras) > 0 {
		opts = append(opts, llb.AddEnv(envExtras, dirExtras))
	}
	for _, e := range extras {
		tree, err := llb.FromDefinition(e.Definition)
		if err != nil {
			return llb.State{}, fmt.Errorf("%s: %w", e.Name, err)
		}
		opts = append(opts, llb.AddMount(path.Join(dirExtras, coreName+"-"+e.Name), tree, llb.Readonly()))
	}
	return s.image.Run(opts...).GetMount(dirOut), nil
}

// HasSBOM reports whether a result has a software bill of materials already.
func HasSBOM(res *gateway.Result) bool {
	for _, list := range res.Attestations {
		for _, a := range list {
			if a.PredicateType == PredicateSPDX {
				return true
			}
		}
	}
	return false
}
