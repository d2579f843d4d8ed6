package policy_test

import (
	"context"
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/policy"
)

// client answers with check; what it resolves has the digest d.
type client struct {
	id       string
	check    func(*policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error)
	asked    []*policypb.CheckPolicyRequest
	resolved []*gatewaypb.ResolveSourceMetaRequest
}

func (c *client) ID() string { return c.id }

func (c *client) CheckPolicy(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
	c.asked = append(c.asked, req)
	return c.check(req)
}

func (c *client) Resolve(_ context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	c.resolved = append(c.resolved, req)
	return &gatewaypb.ResolveSourceMetaResponse{Source: req.Source, Image: &gatewaypb.ResolveSourceImageResponse{Digest: "d"}}, nil
}

func (c *client) evaluate(t *testing.T, op *pb.SourceOp, texts ...string) (*pb.SourceOp, error) {
	t.Helper()
	set, err := policy.New(parse(t, texts...), c)
	require.NoError(t, err)
	return set.Evaluate(t.Context(), op, ocispec.Platform{OS: "linux", Architecture: "arm64"})
}

func decision(d *policypb.DecisionResponse) *policypb.CheckPolicyResponse {
	return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Decision{Decision: d}}
}

func question(op *pb.SourceOp) *policypb.CheckPolicyResponse {
	return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Request{Request: &gatewaypb.ResolveSourceMetaRequest{Source: op}}}
}

func to(op *pb.SourceOp) *policypb.CheckPolicyResponse {
	return decision(&policypb.DecisionResponse{Action: sourcepolicypb.PolicyAction_CONVERT, Update: op})
}

func TestAClientDecidesWithWhatItAsksFor(t *testing.T) {
	c := &client{check: func(req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
		if req.Source.Image == nil {
			return question(req.Source.Source), nil
		}
		return decision(&policypb.DecisionResponse{}), nil
	}}
	op := source(busybox, "image.resolvemode", "pull")
	got, err := c.evaluate(t, op)
	require.NoError(t, err)
	require.Same(t, op, got)
	require.Len(t, c.asked, 2)
	require.Equal(t, "arm64", c.asked[0].Platform.Architecture)
	require.Same(t, op, c.asked[0].Source.Source)
	require.Equal(t, "d", c.asked[1].Source.Image.Digest)
	require.Len(t, c.resolved, 1)
	require.Equal(t, "arm64", c.resolved[0].Platform.Architecture)
}

func TestAClientThatDeniesTellsWhy(t *testing.T) {
	c := &client{check: func(*policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
		return decision(&policypb.DecisionResponse{Action: sourcepolicypb.PolicyAction_DENY, DenyMessages: []*policypb.DenyMessage{{Message: "too old"}}}), nil
	}}
	_, err := c.evaluate(t, source(busybox))
	require.EqualError(t, err, `source "`+busybox+`" not allowed by policy: action DENY`)
	var deny *status.DenyError
	require.ErrorAs(t, err, &deny)
	require.Equal(t, "too old", deny.Messages[0].Message)
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

func TestAClientIsAskedAboutWhatRulesAllowAndMake(t *testing.T) {
	c := &client{check: func(req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
		if req.Source.Source.Identifier == "local://b" {
			return to(source("local://c")), nil
		}
		return decision(&policypb.DecisionResponse{}), nil
	}}
	got, err := c.evaluate(t, source("local://a"), convert(`"identifier":"local://a"`, `"identifier":"local://b"`)+","+convert(`"identifier":"local://c"`, `"identifier":"local://d"`))
	require.NoError(t, err)
	require.Equal(t, "local://d", got.Identifier)
	var ids []string
	for _, a := range c.asked {
		ids = append(ids, a.Source.Source.Identifier)
	}
	require.Equal(t, []string{"local://b", "local://d"}, ids)

	c.asked = nil
	_, err = c.evaluate(t, source(busybox), denyBusy)
	require.ErrorIs(t, err, policy.ErrDenied)
	require.Empty(t, c.asked)
}

func TestClientsThatMakeNoSense(t *testing.T) {
	for text, answer := range map[string]*policypb.CheckPolicyResponse{
		"too many policy requests":                                              question(source(busybox, "a", "b")),
		`policy requested different source identifier "local://x" for`:          question(source("local://x")),
		`policy requested different source identifier "` + busybox + `" for`:    question(source(busybox)),
		"policy of the client made no decision":                                 {},
		"policy of the client converts":                                         to(nil),
		`not allowed by policy: action 9`:                                       decision(&policypb.DecisionResponse{Action: 9}),
		`policy requested different source identifier "" for "docker-image://d`: question(nil),
	} {
		c := &client{check: func(*policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) { return answer, nil }}
		_, err := c.evaluate(t, source(busybox, "a", "b"))
		require.ErrorContains(t, err, text)
		require.LessOrEqual(t, len(c.asked), 10)
	}
	failure := errors.New("the client is gone")
	c := &client{check: func(*policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) { return nil, failure }}
	_, err := c.evaluate(t, source(busybox))
	require.ErrorIs(t, err, failure)
}

func TestAClientThatConvertsForeverIsStopped(t *testing.T) {
	c := &client{check: func(req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
		return to(source(req.Source.Source.Identifier + "x")), nil
	}}
	_, err := c.evaluate(t, source("local://a"))
	require.EqualError(t, err, "too many policy requests")
	require.Len(t, c.asked, 10)
}
