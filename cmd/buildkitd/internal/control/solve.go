package control

import (
	"maps"

	"github.com/openbuildkit/buildkit/api/compat"
	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/solver"
)

// registryCache is the type of remote cache that old requests mean.
const registryCache = "registry"

// decodeSolve reads a request. Its deprecated fields are folded into the present ones.
func decodeSolve(req *controlpb.SolveRequest) (solver.Request, error) {
	if err := checkSolve(req); err != nil {
		return solver.Request{}, err
	}
	version, err := compat.Parse(req.GetCompatibilityVersion())
	if err != nil {
		return solver.Request{}, err
	}
	r := solver.Request{
		Ref:             req.GetRef(),
		Session:         req.GetSession(),
		Frontend:        req.GetFrontend(),
		FrontendOpt:     req.GetFrontendAttrs(),
		FrontendInputs:  req.GetFrontendInputs(),
		Exporters:       decodeExporters(req),
		CacheExports:    decodeCacheExports(req.GetCache()),
		CacheImports:    decodeCacheImports(req.GetCache()),
		Entitlements:    req.GetEntitlements(),
		SessionExporter: req.GetEnableSessionExporter(),
		SourcePolicy:    req.GetSourcePolicy(),
		PolicySession:   req.GetSourcePolicySession(),
		Internal:        req.GetInternal(),
		Compatibility:   version,
	}
	if len(req.GetDefinition().GetDef()) > 0 {
		r.Definition = req.GetDefinition()
	}
	if r.Definition != nil && r.Frontend != "" {
		return solver.Request{}, invalid("cannot solve with both Definition and Frontend specified")
	}
	return r, nil
}

// checkSolve refuses what would mean something else if it were ignored.
func checkSolve(req *controlpb.SolveRequest) error {
	if req.GetProxyNetwork() {
		return unimplemented("proxied networks")
	}
	if exports := decodeCacheExports(req.GetCache()); len(exports) > 0 {
		return invalid("unknown cache exporter: %q", exports[0].Type)
	}
	return nil
}

func decodeExporters(req *controlpb.SolveRequest) []solver.Exporter {
	var out []solver.Exporter
	for _, e := range req.GetExporters() {
		out = append(out, solver.Exporter{Type: e.GetType(), Attrs: e.GetAttrs()})
	}
	// New clients send the first exporter in the old way too.
	if len(out) == 0 && req.GetExporterDeprecated() != "" {
		out = append(out, solver.Exporter{Type: req.GetExporterDeprecated(), Attrs: req.GetExporterAttrsDeprecated()})
	}
	return out
}

func decodeCacheExports(c *controlpb.CacheOptions) []solver.RemoteCache {
	out := decodeCaches(c.GetExports())
	if ref := c.GetExportRefDeprecated(); ref != "" {
		attrs := maps.Clone(c.GetExportAttrsDeprecated())
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs["ref"] = ref
		out = append(out, solver.RemoteCache{Type: registryCache, Attrs: attrs})
	}
	return out
}

func decodeCacheImports(c *controlpb.CacheOptions) []solver.RemoteCache {
	out := decodeCaches(c.GetImports())
	for _, ref := range c.GetImportRefsDeprecated() {
		out = append(out, solver.RemoteCache{Type: registryCache, Attrs: map[string]string{"ref": ref}})
	}
	return out
}

func decodeCaches(entries []*controlpb.CacheOptionsEntry) []solver.RemoteCache {
	var out []solver.RemoteCache
	for _, e := range entries {
		out = append(out, solver.RemoteCache{Type: e.GetType(), Attrs: e.GetAttrs()})
	}
	return out
}
