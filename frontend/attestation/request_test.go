package attestation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/frontend/attestation"
)

func TestWhatIsRequested(t *testing.T) {
	for name, tc := range map[string]struct {
		opts map[string]string
		want map[string]map[string]string
		err  string
	}{
		"nothing":             {opts: map[string]string{"target": "x"}, want: map[string]map[string]string{}},
		"all by default":      {opts: map[string]string{"attest:provenance": "", "attest:sbom": "true"}, want: map[string]map[string]string{"provenance": {}, "sbom": {}}},
		"attributes":          {opts: map[string]string{"attest:provenance": `mode=min,"builder-id=a,b"`}, want: map[string]map[string]string{"provenance": {"mode": "min", "builder-id": "a,b"}}},
		"build arguments":     {opts: map[string]string{"build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=max"}, want: map[string]map[string]string{"provenance": {"mode": "max"}}},
		"options go first":    {opts: map[string]string{"build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=max", "attest:provenance": "mode=min"}, want: map[string]map[string]string{"provenance": {"mode": "min"}}},
		"switched off":        {opts: map[string]string{"attest:provenance": "false", "attest:sbom": "disabled=true"}, want: map[string]map[string]string{}},
		"an unknown type":     {opts: map[string]string{"attest:magic": ""}, err: `unknown attestation type "magic"`},
		"an unknown argument": {opts: map[string]string{"build-arg:BUILDKIT_ATTEST_MAGIC": ""}, err: `unknown attestation type "magic"`},
		"no CSV":              {opts: map[string]string{"attest:sbom": `a="`}, err: "failed to parse attestation sbom: "},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := attestation.Requested(tc.opts)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func FuzzRequested(f *testing.F) {
	f.Add("mode=min,inline-only=true", "generator=x")
	f.Fuzz(func(_ *testing.T, p, s string) {
		_, _ = attestation.RequestedSBOM(map[string]string{"attest:provenance": p, "build-arg:BUILDKIT_ATTEST_SBOM": s})
	})
}
