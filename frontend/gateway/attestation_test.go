package gateway_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

func TestAttestationsGoBothWays(t *testing.T) {
	ref := &fakeRef{file: "a"}
	want := map[string][]client.Attestation{"p": {{
		Kind: gatewaypb.AttestationKind_Bundle, Ref: ref, Path: "/sbom", PredicateType: "https://spdx.dev/Document",
		Metadata: map[string][]byte{"reason": []byte("sbom")},
		Subjects: []client.Subject{{Kind: gatewaypb.InTotoSubjectKind_Raw, Name: "n", Digest: []digest.Digest{digest.FromString("x")}}},
	}}}
	srv := gateway.NewServer(solved(&client.Result{Ref: ref, Attestations: want}))
	c := serve(t, srv)
	resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{AllowResultReturn: true, AllowResultArrayRef: true})
	require.NoError(t, err)
	_, err = c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: resp.GetResult()})
	require.NoError(t, err)
	res, err := srv.Result(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, res.Attestations)
}

func TestForgedAttestationsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		att *gatewaypb.Attestation
		err string
	}{
		"none":              {nil, `attestation 0 of "p": it has no reference`},
		"unknown kind":      {&gatewaypb.Attestation{Kind: 9}, `attestation 0 of "p": unknown attestation kind 9`},
		"unknown reference": {&gatewaypb.Attestation{Ref: &gatewaypb.Ref{Id: "nope"}}, `return reference nope not found`},
		"unknown subject": {
			&gatewaypb.Attestation{Ref: &gatewaypb.Ref{Id: "ID"}, InTotoSubjects: []*gatewaypb.InTotoSubject{{Kind: 5}}}, "unknown subject kind 5",
		},
		"no digest": {
			&gatewaypb.Attestation{Ref: &gatewaypb.Ref{Id: "ID"}, InTotoSubjects: []*gatewaypb.InTotoSubject{{Kind: 1, Name: "n", Digest: []string{"x"}}}},
			`digest "x" of its subject "n"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, gateway.NewServer(solved(&client.Result{Ref: &fakeRef{file: "a"}})))
			resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
			require.NoError(t, err)
			if tc.att.GetRef().GetId() == "ID" {
				tc.att.Ref.Id = resp.GetRef()
			}
			_, err = c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{
				Attestations: map[string]*gatewaypb.Attestations{"p": {Attestation: []*gatewaypb.Attestation{tc.att}}},
			}})
			require.ErrorContains(t, err, tc.err)
		})
	}
}
