package policy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session/policy"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQuestionsReachTheClient(t *testing.T) {
	answers := map[string]*policypb.CheckPolicyResponse{"good": policy.Allow(), "bad": policy.Deny("one", "two")}
	m, c := sessiontest.Connect(t, policy.NewProvider(func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
		return answers[req.GetSource().GetSource().GetIdentifier()], nil
	}))
	ask := func(id string) (*policypb.CheckPolicyResponse, error) {
		return policy.Check(t.Context(), m, c.ID(), &policypb.CheckPolicyRequest{
			Source: &gatewaypb.ResolveSourceMetaResponse{Source: &pb.SourceOp{Identifier: id}},
		})
	}
	resp, err := ask("good")
	require.NoError(t, err)
	require.Equal(t, sourcepolicypb.PolicyAction_ALLOW, resp.GetDecision().GetAction())
	resp, err = ask("bad")
	require.NoError(t, err)
	require.Equal(t, sourcepolicypb.PolicyAction_DENY, resp.GetDecision().GetAction())
	require.Equal(t, "two", resp.GetDecision().GetDenyMessages()[1].GetMessage())
	_, err = ask("unheard of")
	require.EqualError(t, err, "the policy of the client gave no answer")
}

func TestASessionWithoutPolicyAllowsNothing(t *testing.T) {
	m, c := sessiontest.Connect(t)
	_, err := policy.Check(t.Context(), m, c.ID(), &policypb.CheckPolicyRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}
