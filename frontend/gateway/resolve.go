package gateway

import (
	"context"
	"strings"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// Values of ResolveImageConfigRequest.ResolverType.
const (
	resolverRegistry  = 0
	resolverOCILayout = 1
)

// ResolveImageConfig returns the digest and config of an image: the older form of
// ResolveSourceMeta.
func (s *Server) ResolveImageConfig(ctx context.Context, req *gatewaypb.ResolveImageConfigRequest) (*gatewaypb.ResolveImageConfigResponse, error) {
	if err := checkPolicies(req.GetSourcePolicies()); err != nil {
		return nil, err
	}
	var scheme string
	attrs := map[string]string{}
	switch req.GetResolverType() {
	case resolverRegistry:
		scheme = pb.SchemeImage
	case resolverOCILayout:
		scheme = pb.SchemeOCILayout
		setUnlessEmpty(attrs, pb.AttrOCISession, req.GetSessionID())
		setUnlessEmpty(attrs, pb.AttrOCIStore, req.GetStoreID())
	default:
		return nil, invalid("unknown resolver type %d", req.GetResolverType())
	}
	op := &pb.SourceOp{Identifier: scheme + req.GetRef(), Attrs: attrs}
	meta, err := s.bridge.ResolveSourceMeta(ctx, op, client.ResolveOpt{
		Platform:    decodePlatform(req.GetPlatform()),
		LogName:     req.GetLogName(),
		ResolveMode: req.GetResolveMode(),

		SourcePolicies: req.GetSourcePolicies(),
	})
	if err != nil {
		return nil, err
	}
	ref, ok := strings.CutPrefix(meta.Op.GetIdentifier(), scheme)
	if !ok || meta.Image == nil {
		return nil, invalid("%s resolves to %s, which is not an image", req.GetRef(), meta.Op.GetIdentifier())
	}
	return &gatewaypb.ResolveImageConfigResponse{
		Ref:    ref,
		Digest: meta.Image.Digest.String(),
		Config: meta.Image.Config,
	}, nil
}

// ResolveSourceMeta returns what identifies a source.
func (s *Server) ResolveSourceMeta(ctx context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	if req.GetSource() == nil {
		return nil, invalid("source is required")
	}
	if err := checkPolicies(req.GetSourcePolicies()); err != nil {
		return nil, err
	}
	meta, err := s.bridge.ResolveSourceMeta(ctx, req.GetSource(), client.ResolveOpt{
		Platform:    decodePlatform(req.GetPlatform()),
		LogName:     req.GetLogName(),
		ResolveMode: req.GetResolveMode(),
		NoConfig:    req.GetImage().GetNoConfig(),

		AttestationChain: req.GetImage().GetAttestationChain() || len(req.GetImage().GetResolveAttestations()) > 0,
		Attestations:     req.GetImage().GetResolveAttestations(),

		SourcePolicies: req.GetSourcePolicies(),

		HTTPChecksum: req.GetHTTP().GetChecksumRequest(),
		GitObject:    req.GetGit().GetReturnObject(),
	})
	if err != nil {
		return nil, err
	}
	resp := &gatewaypb.ResolveSourceMetaResponse{Source: meta.Op, Git: meta.Git, HTTP: meta.HTTP}
	if meta.Image != nil {
		resp.Image = &gatewaypb.ResolveSourceImageResponse{
			Digest: meta.Image.Digest.String(),
			Config: meta.Image.Config,

			AttestationChain: meta.Image.Attestations,
		}
	}
	return resp, nil
}

func setUnlessEmpty(m map[string]string, key, value string) {
	if value != "" {
		m[key] = value
	}
}
