package solver

import (
	"context"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/attestation"
)

// sbomRequest is how the client wants the result scanned.
type sbomRequest struct {
	sbom *attestation.SBOM
	opt  attestation.Options
}

// acceptSBOM reads a request for software bills of materials.
func acceptSBOM(attrs, opts map[string]string) (*sbomRequest, error) {
	var err error
	r := &sbomRequest{}
	if r.sbom, err = attestation.ParseSBOM(attrs); err != nil {
		return nil, err
	}
	if r.opt.ResolveMode, err = llb.ParseResolveMode(opts["image-resolve-mode"]); err != nil {
		return nil, err
	}
	stages, given := opts["no-cache"]
	r.opt.IgnoreCache = given && stages == ""
	return r, nil
}

// scan has every part of a result scanned if that is asked for and the frontend, which knows more of
// what the result is made of, did not.
func (j *job) scan(ctx context.Context, res *gateway.Result) error {
	if j.sbom == nil || attestation.HasSBOM(res) {
		return nil
	}
	parts, err := j.parts(res)
	if err != nil {
		return err
	}
	// Provenance is about what was asked for: the scan is not in it.
	b := &bridge{job: j, asked: &asked{}, opts: j.req.FrontendOpt}
	var scanner *attestation.Scanner
	for _, p := range parts {
		ref := res.Ref
		if res.Refs != nil {
			ref = res.Refs[p.ID]
		}
		if ref == nil {
			continue
		}
		if scanner == nil {
			if scanner, err = j.sbom.sbom.Resolve(ctx, b, j.sbom.opt); err != nil {
				return err
			}
		}
		a, err := scanner.Attest(ctx, p.Platform.Platform, ref.Definition(), nil)
		if err != nil {
			return err
		}
		res.AddAttestations(p.ID, []gateway.Attestation{a})
	}
	return nil
}
