// Package policy decides which sources a build may use, and which others it gets in their place.
//
// Rules come from the request of the build and from requests of its frontend; a client may be asked
// for what the rules leave open, see Client. A Set is made once for a build and asked for every
// source: of a definition before it is loaded, and of a request to resolve before it is sent. It
// neither fetches nor remembers anything.
//
// The rules of a policy are read in order. The last one that allows or denies a source decides; a
// source that none speaks of is allowed. A rule that converts a source ends the round: the new source
// is asked for from the first policy on. Each policy may deny, whatever the others say.
package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
)

// maxConversions is how often one source may become another.
const maxConversions = 20

// maxIdentifier bounds the identifiers that rules read and make, in bytes: what was matched may be
// inserted many times, and again in every round, and to match one takes time that grows with it.
const maxIdentifier = 8 << 10

var errTooLong = invalid("the identifier of a source is longer than %d bytes", maxIdentifier)

// ErrDenied is what errors of sources match that rules deny.
var ErrDenied = errors.New("source denied by policy")

// Set is the policies of a build. The zero value and nil allow everything. It is not changed once
// made and may be used concurrently.
type Set struct {
	policies [][]*rule
	client   Client
	size     patterns
	id       digest.Digest
}

// New returns the set of policies, asked in this order and then client, which may be nil. Errors
// name what is wrong with a rule.
func New(policies []*sourcepolicypb.Policy, client Client) (*Set, error) {
	s := &Set{client: client}
	if client != nil {
		s.id = digest.FromString("client " + client.ID())
	}
	return s.With(policies)
}

// ID is equal for sets that decide alike, and empty for one that allows everything.
func (s *Set) ID() string {
	if s == nil {
		return ""
	}
	return s.id.String()
}

// With returns the set with more policies, asked after those that are there.
func (s *Set) With(policies []*sourcepolicypb.Policy) (*Set, error) {
	if len(policies) == 0 {
		return s, nil
	}
	out := &Set{}
	if s != nil {
		out.client, out.size, out.id = s.client, s.size, s.id
		out.policies = append(out.policies, s.policies...)
	}
	for _, p := range policies {
		if p == nil {
			return nil, invalid("invalid nil source policy")
		}
		rules := make([]*rule, len(p.Rules))
		for i, r := range p.Rules {
			var err error
			if rules[i], err = out.size.rule(r); err != nil {
				return nil, status.WithCode(err, codes.InvalidArgument)
			}
		}
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode source policy: %w", err)
		}
		out.policies = append(out.policies, rules)
		out.id = digest.FromString(out.id.String() + "\x00" + string(text))
	}
	return out, nil
}

// Evaluate returns the source that takes the place of op: op itself unless a rule or the client
// converts it. It does not change op. platform is what the source is wanted for.
func (s *Set) Evaluate(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform) (*pb.SourceOp, error) {
	if s == nil {
		return op, nil
	}
	out, err := s.replace(ctx, op, platform)
	if err != nil {
		return nil, err
	}
	blob := bundle(out)
	if blob == nil {
		return out, nil
	}
	used, err := s.replace(ctx, blob, platform)
	if err != nil || used == blob {
		return out, err
	}
	return withBundle(out, used), nil
}

// replace returns what rules and client make of one source.
func (s *Set) replace(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform) (*pb.SourceOp, error) {
	questions := 0
	for range maxConversions + 1 {
		next, err := s.rules(ctx, op)
		if err == nil && next == nil && s.client != nil {
			next, err = ask(ctx, s.client, op, platform, &questions)
		}
		if err != nil {
			return nil, err
		}
		if next == nil {
			return op, nil
		}
		op = next
	}
	return nil, status.New(codes.FailedPrecondition, "too many mutations on a single source")
}

// rules returns what the first rule that converts a source makes of it, nil if none does.
func (s *Set) rules(ctx context.Context, op *pb.SourceOp) (*pb.SourceOp, error) {
	if len(s.policies) == 0 {
		return nil, nil
	}
	id := identifier(op)
	if len(id) > maxIdentifier {
		return nil, errTooLong
	}
	for _, rules := range s.policies {
		denied := false
		for _, r := range rules {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if !r.matches(id, op.Attrs) {
				continue
			}
			switch r.action {
			case sourcepolicypb.PolicyAction_ALLOW:
				denied = false
			case sourcepolicypb.PolicyAction_DENY:
				denied = true
			case sourcepolicypb.PolicyAction_CONVERT:
				if next, err := r.convert(op, id); next != nil || err != nil {
					return next, err
				}
			}
		}
		if denied {
			return nil, status.WithCode(fmt.Errorf("source %q denied by policy: %w", giturl.Redact(id), ErrDenied), codes.PermissionDenied)
		}
	}
	return nil, nil
}

func invalid(format string, args ...any) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf(format, args...))
}
