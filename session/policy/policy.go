// Package policy lets a client decide, while it builds, which sources the build may use. The daemon
// asks about each before it uses it; the client allows it, denies it with messages for the user,
// names another one to use instead, or asks what the source stands for first.
//
// The package carries questions and answers. What they mean is package solver/policy's.
package policy

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// Func answers a question. The source that it is about is req.Source.Source; what was asked for in
// earlier answers stands beside it. Calls come concurrently.
type Func func(ctx context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error)

// Provider is the client's service.
type Provider struct {
	policypb.UnimplementedPolicyVerifierServer
	check Func
}

// NewProvider returns a service that answers with fn.
func NewProvider(fn Func) *Provider { return &Provider{check: fn} }

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { policypb.RegisterPolicyVerifierServer(srv, p) }

// CheckPolicy answers a question.
func (p *Provider) CheckPolicy(ctx context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
	resp, err := p.check(ctx, req)
	if err == nil && resp == nil {
		err = status.New(codes.Internal, "the policy of the client gave no answer")
	}
	return resp, err
}

// Allow is the answer that a source may be used.
func Allow() *policypb.CheckPolicyResponse {
	return decision(&policypb.DecisionResponse{Action: sourcepolicypb.PolicyAction_ALLOW})
}

// Deny is the answer that a source must not be used. The messages are shown to the user.
func Deny(messages ...string) *policypb.CheckPolicyResponse {
	d := &policypb.DecisionResponse{Action: sourcepolicypb.PolicyAction_DENY}
	for _, m := range messages {
		d.DenyMessages = append(d.DenyMessages, &policypb.DenyMessage{Message: m})
	}
	return decision(d)
}

func decision(d *policypb.DecisionResponse) *policypb.CheckPolicyResponse {
	return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Decision{Decision: d}}
}

// Check asks the client with the session id.
func Check(ctx context.Context, m *session.Manager, id string, req *policypb.CheckPolicyRequest) (resp *policypb.CheckPolicyResponse, err error) {
	err = m.Any(ctx, session.IDs{id}, func(ctx context.Context, c *session.Caller) error {
		resp, err = policypb.NewPolicyVerifierClient(c.Conn()).CheckPolicy(ctx, req)
		return err
	})
	return resp, err
}
