package solver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	gwserver "github.com/openbuildkit/buildkit/frontend/gateway"
	sessionpolicy "github.com/openbuildkit/buildkit/session/policy"
	"github.com/openbuildkit/buildkit/solver/policy"
)

// newPolicies returns the policies that the request of the build came with.
func (j *job) newPolicies() (*policy.Set, error) {
	var policies []*sourcepolicypb.Policy
	if j.req.SourcePolicy != nil {
		policies = append(policies, j.req.SourcePolicy)
	}
	var client policy.Client
	if j.req.PolicySession != "" {
		client = policyClient{j}
	}
	return policy.New(policies, client)
}

// keepPolicies keeps a set for the definitions of build ops in what was loaded under it.
func (j *job) keepPolicies(set *policy.Set) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.sets == nil {
		j.sets = map[string]*policy.Set{}
	}
	j.sets[set.ID()] = set
}

// policiesOf returns the set with an id.
func (j *job) policiesOf(id string) *policy.Set {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sets[id]
}

// policyClient is the session that is asked about sources.
type policyClient struct{ job *job }

// ID is that of the session.
func (c policyClient) ID() string { return c.job.req.PolicySession }

// CheckPolicy asks the session.
func (c policyClient) CheckPolicy(ctx context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
	return sessionpolicy.Check(ctx, c.job.solver.cfg.Sessions, c.job.req.PolicySession, req)
}

// Resolve resolves a source for the session, which has not decided on it yet.
func (c policyClient) Resolve(ctx context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	// What a policy looks at goes into nothing.
	unjudged := unjudged{&bridge{job: c.job, asked: &asked{}, policies: &policy.Set{}}}
	return gwserver.NewServer(unjudged).ResolveSourceMeta(ctx, req)
}

// unjudged is a bridge that resolves for the policy and not for a frontend: how often is bounded for
// each source.
type unjudged struct{ *bridge }

// ResolveSourceMeta resolves a source without loading it.
func (u unjudged) ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	if op == nil {
		return nil, status.New(codes.InvalidArgument, "source is required")
	}
	return u.resolve(ctx, op, opt)
}

// sourcePolicies returns the policies that hold for a request of the frontend with more of them.
func (b *bridge) sourcePolicies(more []*sourcepolicypb.Policy) (*policy.Set, error) {
	all := b.policies
	if all == nil {
		all = b.job.policies
	}
	return all.With(more)
}

// permitted returns the source to resolve when op was asked for.
func (b *bridge) permitted(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, more []*sourcepolicypb.Policy) (*pb.SourceOp, error) {
	policies, err := b.sourcePolicies(more)
	if err != nil {
		return nil, err
	}
	out, err := policies.Evaluate(ctx, op, platform)
	if err != nil {
		_, ref, _ := strings.Cut(op.GetIdentifier(), "://")
		return nil, fmt.Errorf("failed to resolve source metadata for %s: could not resolve image due to policy: %w", giturl.Redact(ref), err)
	}
	return out, nil
}

// policyError is why a source of a definition must not be loaded.
type policyError struct{ err error }

func (e *policyError) Error() string {
	return "failed to load LLB: error evaluating the source policy: " + e.err.Error()
}
func (e *policyError) Unwrap() error { return e.err }

// amend applies policies and grants of the build to the ops of a graph while it is loaded: sources
// that others take the place of, and devices that it names by an alias.
func (j *job) amend(ctx context.Context, policies *policy.Set) func(*pb.Op, ocispec.Platform) (bool, error) {
	return func(op *pb.Op, platform ocispec.Platform) (bool, error) {
		switch o := op.Op.(type) {
		case *pb.Op_Source:
			out, err := policies.Evaluate(ctx, o.Source, platform)
			if err != nil {
				return false, &policyError{err}
			}
			changed := out != o.Source
			o.Source = out
			return changed, nil
		case *pb.Op_Exec:
			return j.resolveAliases(o.Exec.CdiDevices), nil
		}
		return false, nil
	}
}

// refusal is the error of a graph that was not loaded: the fault of whoever made it, unless a policy
// says otherwise.
func refusal(err error) error {
	var byPolicy *policyError
	if errors.As(err, &byPolicy) {
		return err
	}
	return status.WithCode(err, codes.InvalidArgument)
}
