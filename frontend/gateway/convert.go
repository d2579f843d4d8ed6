package gateway

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// decodeSolve checks a request as far as the message itself goes.
func decodeSolve(req *gatewaypb.SolveRequest) (client.SolveRequest, error) {
	out := client.SolveRequest{
		Definition:     req.GetDefinition(),
		Frontend:       req.GetFrontend(),
		FrontendOpt:    req.GetFrontendOpt(),
		FrontendInputs: req.GetFrontendInputs(),
		Evaluate:       req.GetEvaluate(),
		SourcePolicies: req.GetSourcePolicies(),
	}
	// Clients send a definition without ops for none.
	if len(out.Definition.GetDef()) == 0 {
		out.Definition = nil
	}
	if out.Definition != nil && out.Frontend != "" {
		return out, invalid("cannot solve with both Definition and Frontend specified")
	}
	for _, name := range slices.Sorted(maps.Keys(out.FrontendInputs)) {
		if out.FrontendInputs[name] == nil {
			return out, invalid("invalid nil input definition to definition op")
		}
	}
	for _, im := range req.GetCacheImports() {
		if im == nil {
			return out, invalid("invalid nil cache import")
		}
		out.CacheImports = append(out.CacheImports, client.CacheImport{Type: im.GetType(), Attrs: im.GetAttrs()})
	}
	return out, checkPolicies(req.GetSourcePolicies())
}

// checkPolicies refuses what is no policy.
func checkPolicies(policies []*sourcepolicypb.Policy) error {
	if slices.Contains(policies, nil) {
		return invalid("invalid nil source policy")
	}
	return nil
}

func decodePlatform(p *pb.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	spec := p.Spec()
	return &spec
}

// decodeExporterAttr reads the metadata that a request returns in the old way, without Return.
func decodeExporterAttr(req *gatewaypb.SolveRequest) (map[string][]byte, error) {
	if !req.GetFinal() || len(req.GetExporterAttr()) == 0 {
		return nil, nil
	}
	var meta map[string][]byte
	if err := json.Unmarshal(req.GetExporterAttr(), &meta); err != nil {
		return nil, invalid("exporter attributes: %v", err)
	}
	return meta, nil
}

// withMeta returns a copy of res with meta added to its metadata.
func withMeta(res *client.Result, meta map[string][]byte) *client.Result {
	out := *res
	out.Metadata = maps.Clone(res.Metadata)
	for k, v := range meta {
		out.SetMeta(k, v)
	}
	return &out
}

// encodeResult keeps the references of res under fresh ids. Old frontends know references as
// plain strings; asMessages gives them with their definitions.
func (s *Server) encodeResult(res *client.Result, asMessages bool) *gatewaypb.Result {
	out := &gatewaypb.Result{Metadata: res.Metadata, Attestations: s.encodeAttestations(res.Attestations)}
	switch {
	case res.Refs != nil && asMessages:
		refs := make(map[string]*gatewaypb.Ref, len(res.Refs))
		for id, ref := range res.Refs {
			refs[id] = s.encodeRef(ref)
		}
		out.Result = &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: refs}}
	case res.Refs != nil:
		refs := make(map[string]string, len(res.Refs))
		for id, ref := range res.Refs {
			refs[id] = s.keep(ref)
		}
		out.Result = &gatewaypb.Result_RefsDeprecated{RefsDeprecated: &gatewaypb.RefMapDeprecated{Refs: refs}}
	case asMessages:
		out.Result = &gatewaypb.Result_Ref{Ref: s.encodeRef(res.Ref)}
	default:
		out.Result = &gatewaypb.Result_RefDeprecated{RefDeprecated: s.keep(res.Ref)}
	}
	return out
}

func (s *Server) encodeRef(ref client.Reference) *gatewaypb.Ref {
	if ref == nil {
		return &gatewaypb.Ref{}
	}
	return &gatewaypb.Ref{Id: s.keep(ref), Def: ref.Definition()}
}

// decodeResult finds the references that a frontend returns.
func (s *Server) decodeResult(res *gatewaypb.Result) (*client.Result, error) {
	out := &client.Result{Metadata: res.GetMetadata()}
	var err error
	switch r := res.GetResult().(type) {
	case *gatewaypb.Result_RefDeprecated:
		out.Ref, err = s.returnedRef(r.RefDeprecated)
	case *gatewaypb.Result_Ref:
		out.Ref, err = s.returnedRef(r.Ref.GetId())
	case *gatewaypb.Result_RefsDeprecated:
		out.Refs, err = decodeRefs(r.RefsDeprecated.GetRefs(), s.returnedRef)
	case *gatewaypb.Result_Refs:
		out.Refs, err = decodeRefs(r.Refs.GetRefs(), func(ref *gatewaypb.Ref) (client.Reference, error) {
			return s.returnedRef(ref.GetId())
		})
	}
	if err == nil {
		out.Attestations, err = s.decodeAttestations(res.GetAttestations())
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func decodeRefs[T any](refs map[string]T, decode func(T) (client.Reference, error)) (map[string]client.Reference, error) {
	out := make(map[string]client.Reference, len(refs))
	for key, value := range refs {
		ref, err := decode(value)
		if err != nil {
			return nil, err
		}
		out[key] = ref
	}
	return out, nil
}

// newID returns an id that cannot be guessed.
func newID() string { return strings.ToLower(rand.Text()) }
