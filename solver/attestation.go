package solver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
)

// checkAttestations refuses what a frontend must not say: how the result was built is for the
// builder to state, and of what is no part of the result nothing can be said.
func (j *job) checkAttestations(res *gateway.Result) error {
	if len(res.Attestations) == 0 {
		return nil
	}
	parts, err := j.parts(res)
	if err != nil {
		return status.WithCode(err, codes.InvalidArgument)
	}
	known := map[string]bool{}
	for _, p := range parts {
		known[p.ID] = true
	}
	return eachAttestation(res, func(id string, a gateway.Attestation) error {
		switch {
		case !known[id]:
			return badAttestation("attestation %q is about %q, which is no part of the result", a.Path, id)
		case strings.HasPrefix(a.PredicateType, attest.PredicateProvenance):
			return badAttestation("attestation of %q: only the builder may state %s", id, a.PredicateType)
		case a.Ref == nil:
			return badAttestation("attestation %q of %q has no reference", a.Path, id)
		}
		return nil
	})
}

func badAttestation(format string, args ...any) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf(format, args...))
}

// parts returns what a result consists of, without its trees.
func (j *job) parts(res *gateway.Result) ([]exporter.Part, error) {
	shape := &exporter.Result{Metadata: res.Metadata}
	if res.Refs != nil {
		shape.Refs = emptyTrees(res)
	}
	return shape.Parts(j.solver.platform())
}

// eachAttestation calls fn for the attestations of a result, by platform.
func eachAttestation(res *gateway.Result, fn func(id string, a gateway.Attestation) error) error {
	for _, id := range slices.Sorted(maps.Keys(res.Attestations)) {
		for _, a := range res.Attestations[id] {
			if err := fn(id, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluateAttestations computes the trees of all attestations at once: each may be the work of a
// scanner.
func evaluateAttestations(ctx context.Context, res *gateway.Result) error {
	eg, ctx := errgroup.WithContext(ctx)
	_ = eachAttestation(res, func(_ string, a gateway.Attestation) error {
		eg.Go(func() error { return a.Ref.Evaluate(ctx) })
		return nil
	})
	return eg.Wait()
}

// exportedAttestation returns one as exporters know it.
func exportedAttestation(a gateway.Attestation, tree *cache.Ref) exporter.Attestation {
	out := exporter.Attestation{Kind: a.Kind, Ref: tree, Path: a.Path, PredicateType: a.PredicateType, Metadata: a.Metadata}
	for _, s := range a.Subjects {
		out.Subjects = append(out.Subjects, exporter.Subject(s))
	}
	return out
}
