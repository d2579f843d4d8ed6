package policy

import (
	"context"
	"fmt"
	"maps"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
)

// maxQuestions is how often a client is asked about one source, and about what it becomes.
const maxQuestions = 10

// Client decides on sources one by one, on the side of the user.
type Client interface {
	// ID names the client: another one may decide otherwise.
	ID() string
	// CheckPolicy asks for a decision or for what has to be known first.
	CheckPolicy(ctx context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error)
	// Resolve finds out what the client wants to know. Policies do not apply.
	Resolve(ctx context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error)
}

// ask returns the source that the client puts in the place of op, nil if it allows op. n counts
// the questions about a source.
func ask(ctx context.Context, c Client, op *pb.SourceOp, platform ocispec.Platform, n *int) (*pb.SourceOp, error) {
	req := &policypb.CheckPolicyRequest{
		Platform: pb.FromSpec(platform),
		Source:   &gatewaypb.ResolveSourceMetaResponse{Source: op},
	}
	for {
		if *n++; *n > maxQuestions {
			return nil, status.New(codes.FailedPrecondition, "too many policy requests")
		}
		resp, err := c.CheckPolicy(ctx, req)
		if err != nil {
			return nil, err
		}
		wanted := resp.GetRequest()
		if wanted == nil {
			return decide(op, resp.GetDecision())
		}
		if wanted.GetSource().GetIdentifier() != op.Identifier || !maps.Equal(wanted.GetSource().GetAttrs(), op.Attrs) {
			return nil, invalid("policy requested different source identifier %q for %q",
				giturl.Redact(wanted.GetSource().GetIdentifier()), giturl.Redact(op.Identifier))
		}
		if wanted.Platform == nil {
			wanted.Platform = req.Platform
		}
		if req.Source, err = c.Resolve(ctx, wanted); err != nil {
			return nil, err
		}
	}
}

func decide(op *pb.SourceOp, d *policypb.DecisionResponse) (*pb.SourceOp, error) {
	if d == nil {
		return nil, invalid("policy of the client made no decision about %q", giturl.Redact(op.Identifier))
	}
	switch d.Action {
	case sourcepolicypb.PolicyAction_ALLOW:
		return nil, nil
	case sourcepolicypb.PolicyAction_CONVERT:
		if d.Update.GetIdentifier() == "" {
			return nil, invalid("policy of the client converts %q, but does not say to what", giturl.Redact(op.Identifier))
		}
		return d.Update, nil
	}
	err := status.New(codes.PermissionDenied, fmt.Sprintf("source %q not allowed by policy: action %s", giturl.Redact(op.Identifier), d.Action))
	return nil, &status.DenyError{Messages: d.DenyMessages, Err: err}
}
