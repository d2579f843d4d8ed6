package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/policy"
)

func TestTheBundleOfARepositoryIsASource(t *testing.T) {
	const locator = "docker-image+blob://example.com/bundles@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	op := source("git://example.com/x.git", pb.AttrGitBundle, locator, pb.AttrOCIStore, "s")
	_, err := evaluate(t, op, `{"action":"DENY","selector":{"identifier":"docker-image+blob://*"}}`)
	require.ErrorIs(t, err, policy.ErrDenied)
	require.ErrorContains(t, err, locator)

	got, err := evaluate(t, op, `{"action":"DENY","selector":{"identifier":"docker-image://*"}}`)
	require.NoError(t, err)
	require.Same(t, op, got)

	got, err = evaluate(t, op, convert(`"identifier":"docker-image+blob://example.com/*"`, `"identifier":"oci-layout+blob://$1","attrs":{"oci.store":"t"}`))
	require.NoError(t, err)
	require.Equal(t, "git://example.com/x.git", got.Identifier)
	require.Equal(t, "oci-layout+blob://"+locator[len("docker-image+blob://example.com/"):], got.Attrs[pb.AttrGitBundle])
	require.Equal(t, "t", got.Attrs[pb.AttrOCIStore])
	require.Equal(t, locator, op.Attrs[pb.AttrGitBundle])
}
