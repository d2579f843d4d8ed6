package dockerfile

import (
	"context"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/attestation"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// resolveScannerOnce returns a function that looks the scanner up at its first call, for all
// platforms.
func (b *build) resolveScannerOnce(ctx context.Context) func() (*attestation.Scanner, error) {
	return sync.OnceValues(func() (*attestation.Scanner, error) {
		return b.opts.sbom.Resolve(ctx, b.client, attestation.Options{
			ResolveMode: b.opts.resolveMode,
			IgnoreCache: b.opts.noCacheAll,
		})
	})
}

// scan has the result for a platform scanned if software bills of materials are asked for, and the
// stages and the context that the Dockerfile wants to be.
func (b *build) scan(ctx context.Context, p ocispec.Platform, res *lower.Result, def *pb.Definition) ([]gateway.Attestation, error) {
	if b.opts.sbom == nil {
		return nil, nil
	}
	scanner, err := b.scanner()
	if err != nil {
		return nil, err
	}
	var extras []attestation.Tree
	for _, s := range res.Scanned {
		def, err := res.MarshalScanned(ctx, s)
		if err != nil {
			return nil, err
		}
		extras = append(extras, attestation.Tree{Name: s.Name, Definition: def})
	}
	a, err := scanner.Attest(ctx, p, def, extras)
	if err != nil {
		return nil, err
	}
	return []gateway.Attestation{a}, nil
}
