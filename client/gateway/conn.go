package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
)

// cacheImportsOpt is the frontend option that holds the build's cache imports as JSON. It belongs
// to every solve of the build.
const cacheImportsOpt = "cache-imports"

// Config is what a frontend is told apart from what the daemon says of itself.
type Config struct {
	Opts      map[string]string
	SessionID string
	Product   string
}

// Conn is a Client over the gateway API.
type Conn struct {
	bridge gatewaypb.LLBBridgeClient
	opts   BuildOpts
}

// Connect asks the daemon behind bridge what it is able to do and returns a Client of it. The
// bridge must map errors as package status does.
func Connect(ctx context.Context, bridge gatewaypb.LLBBridgeClient, cfg Config) (*Conn, error) {
	pong, err := bridge.Ping(ctx, &gatewaypb.PingRequest{})
	if err != nil {
		return nil, err
	}
	return &Conn{bridge: bridge, opts: BuildOpts{
		Opts:      maps.Clone(cfg.Opts),
		SessionID: cfg.SessionID,
		Product:   cfg.Product,
		Workers:   decodeWorkers(pong.GetWorkers()),
		LLBCaps:   enabled(pong.GetLLBCaps()),
		Caps:      enabled(pong.GetFrontendAPICaps()),
	}}, nil
}

func enabled(caps []*capspb.APICap) map[string]bool {
	out := make(map[string]bool, len(caps))
	for _, c := range caps {
		if c.GetEnabled() {
			out[c.GetID()] = true
		}
	}
	return out
}

func decodeWorkers(records []*workerspb.WorkerRecord) []WorkerInfo {
	out := make([]WorkerInfo, 0, len(records))
	for _, r := range records {
		w := WorkerInfo{ID: r.GetID(), Labels: r.GetLabels(), Platforms: []ocispec.Platform{}}
		for _, p := range r.GetPlatforms() {
			w.Platforms = append(w.Platforms, p.Spec())
		}
		out = append(out, w)
	}
	return out
}

// Run runs a frontend and returns its result, or its error, to the daemon. The error is that of
// the frontend; one of the daemon refusing the result comes second.
func (c *Conn) Run(ctx context.Context, build BuildFunc) error {
	res, err := build(ctx, c)
	req := &gatewaypb.ReturnRequest{}
	if err == nil {
		req.Result, err = encodeResult(res)
	}
	if err != nil {
		req.Error = status.Proto(err)
	}
	// The daemon is told of a failure even if that is that ctx ended.
	if _, rerr := c.bridge.Return(context.WithoutCancel(ctx), req); err == nil {
		err = rerr
	}
	return err
}

// BuildOpts implements Client.
func (c *Conn) BuildOpts() BuildOpts { return c.opts }

// Solve implements Client.
func (c *Conn) Solve(ctx context.Context, req SolveRequest) (*Result, error) {
	msg := &gatewaypb.SolveRequest{
		Definition:          req.Definition,
		Frontend:            req.Frontend,
		FrontendOpt:         c.withCacheImports(req.FrontendOpt),
		FrontendInputs:      req.FrontendInputs,
		AllowResultReturn:   true,
		AllowResultArrayRef: true,
		Evaluate:            req.Evaluate,
		SourcePolicies:      req.SourcePolicies,
	}
	for _, im := range req.CacheImports {
		msg.CacheImports = append(msg.CacheImports, &gatewaypb.CacheOptionsEntry{Type: im.Type, Attrs: im.Attrs})
	}
	resp, err := c.bridge.Solve(ctx, msg)
	if err != nil {
		return nil, err
	}
	return c.decodeResult(resp.GetResult()), nil
}

func (c *Conn) withCacheImports(opts map[string]string) map[string]string {
	imports, ok := c.opts.Opts[cacheImportsOpt]
	if _, set := opts[cacheImportsOpt]; set || !ok {
		return opts
	}
	opts = maps.Clone(opts)
	if opts == nil {
		opts = map[string]string{}
	}
	opts[cacheImportsOpt] = imports
	return opts
}

// ResolveSourceMeta implements Client.
func (c *Conn) ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt ResolveOpt) (*SourceMeta, error) {
	req := &gatewaypb.ResolveSourceMetaRequest{
		Source:         op,
		LogName:        opt.LogName,
		ResolveMode:    opt.ResolveMode,
		SourcePolicies: opt.SourcePolicies,
	}
	if opt.Platform != nil {
		req.Platform = pb.FromSpec(*opt.Platform)
	}
	if opt.NoConfig || opt.AttestationChain {
		req.Image = &gatewaypb.ResolveSourceImageRequest{
			NoConfig: opt.NoConfig, AttestationChain: opt.AttestationChain, ResolveAttestations: opt.Attestations,
		}
	}
	if opt.GitObject {
		req.Git = &gatewaypb.ResolveSourceGitRequest{ReturnObject: true}
	}
	if opt.HTTPChecksum != nil {
		req.HTTP = &gatewaypb.ResolveSourceHTTPRequest{ChecksumRequest: opt.HTTPChecksum}
	}
	resp, err := c.bridge.ResolveSourceMeta(ctx, req)
	if err != nil {
		return nil, err
	}
	meta := &SourceMeta{Op: resp.GetSource(), Git: resp.GetGit(), HTTP: resp.GetHTTP()}
	if meta.Op == nil {
		meta.Op = op
	}
	if img := resp.GetImage(); img != nil {
		dgst, err := digest.Parse(img.GetDigest())
		if err != nil {
			return nil, fmt.Errorf("digest of %s: %w", meta.Op.GetIdentifier(), err)
		}
		meta.Image = &ImageMeta{Digest: dgst, Config: img.GetConfig(), Attestations: img.GetAttestationChain()}
	}
	return meta, nil
}

// Inputs implements Client.
func (c *Conn) Inputs(ctx context.Context) (map[string]*pb.Definition, error) {
	resp, err := c.bridge.Inputs(ctx, &gatewaypb.InputsRequest{})
	if err != nil {
		return nil, err
	}
	return resp.GetDefinitions(), nil
}

// Warn implements Client.
func (c *Conn) Warn(ctx context.Context, dgst digest.Digest, msg string, opt WarnOpt) error {
	_, err := c.bridge.Warn(ctx, &gatewaypb.WarnRequest{
		Digest: string(dgst),
		Level:  int64(max(1, opt.Level)),
		Short:  []byte(msg),
		Detail: opt.Detail,
		Url:    opt.URL,
		Info:   opt.Source,
		Ranges: opt.Ranges,
	})
	return err
}

func (c *Conn) decodeResult(msg *gatewaypb.Result) *Result {
	res := &Result{Metadata: msg.GetMetadata()}
	switch r := msg.GetResult().(type) {
	case *gatewaypb.Result_Ref:
		res.Ref = c.reference(r.Ref)
	case *gatewaypb.Result_RefDeprecated:
		res.Ref = c.reference(&gatewaypb.Ref{Id: r.RefDeprecated})
	case *gatewaypb.Result_Refs:
		for id, ref := range r.Refs.GetRefs() {
			res.AddRef(id, c.reference(ref))
		}
	case *gatewaypb.Result_RefsDeprecated:
		for id, ref := range r.RefsDeprecated.GetRefs() {
			res.AddRef(id, c.reference(&gatewaypb.Ref{Id: ref}))
		}
	}
	for id, list := range msg.GetAttestations() {
		if res.Attestations == nil {
			res.Attestations = map[string][]Attestation{}
		}
		for _, a := range list.GetAttestation() {
			res.Attestations[id] = append(res.Attestations[id], c.decodeAttestation(a))
		}
	}
	return res
}

func (c *Conn) decodeAttestation(msg *gatewaypb.Attestation) Attestation {
	a := Attestation{
		Kind:          msg.GetKind(),
		Metadata:      msg.GetMetadata(),
		Ref:           c.reference(msg.GetRef()),
		Path:          msg.GetPath(),
		PredicateType: msg.GetInTotoPredicateType(),
	}
	for _, s := range msg.GetInTotoSubjects() {
		subject := Subject{Kind: s.GetKind(), Name: s.GetName()}
		for _, d := range s.GetDigest() {
			subject.Digest = append(subject.Digest, digest.Digest(d))
		}
		a.Subjects = append(a.Subjects, subject)
	}
	return a
}

var errForeignReference = errors.New("reference is not one of this connection")

func encodeResult(res *Result) (*gatewaypb.Result, error) {
	if res == nil {
		return &gatewaypb.Result{}, nil
	}
	msg := &gatewaypb.Result{Metadata: res.Metadata}
	if res.Refs != nil && res.Ref == nil {
		refs := make(map[string]*gatewaypb.Ref, len(res.Refs))
		for id, ref := range res.Refs {
			var err error
			if refs[id], err = encodeReference(ref); err != nil {
				return nil, err
			}
		}
		msg.Result = &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: refs}}
	} else {
		ref, err := encodeReference(res.Ref)
		if err != nil {
			return nil, err
		}
		msg.Result = &gatewaypb.Result_Ref{Ref: ref}
	}
	for id, list := range res.Attestations {
		if msg.Attestations == nil {
			msg.Attestations = map[string]*gatewaypb.Attestations{}
		}
		encoded := &gatewaypb.Attestations{}
		for _, a := range list {
			m, err := encodeAttestation(a)
			if err != nil {
				return nil, err
			}
			encoded.Attestation = append(encoded.Attestation, m)
		}
		msg.Attestations[id] = encoded
	}
	return msg, nil
}

func encodeAttestation(a Attestation) (*gatewaypb.Attestation, error) {
	ref, err := encodeReference(a.Ref)
	if err != nil {
		return nil, err
	}
	msg := &gatewaypb.Attestation{
		Kind:                a.Kind,
		Metadata:            a.Metadata,
		Ref:                 ref,
		Path:                a.Path,
		InTotoPredicateType: a.PredicateType,
	}
	for _, s := range a.Subjects {
		subject := &gatewaypb.InTotoSubject{Kind: s.Kind, Name: s.Name}
		for _, d := range s.Digest {
			subject.Digest = append(subject.Digest, string(d))
		}
		msg.InTotoSubjects = append(msg.InTotoSubjects, subject)
	}
	return msg, nil
}
