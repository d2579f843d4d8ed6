package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	buildkit "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session/policy"
)

// policyFile writes a policy with rules and returns the flag that names it.
func policyFile(t *testing.T, rules ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	write(t, file, `{"rules":[`+strings.Join(rules, ",")+`]}`)
	return "--source-policy-file=" + file
}

const busyboxSource = "docker-image://docker.io/library/busybox:latest"

func denies(selector string) string {
	return `{"action":"DENY","selector":{"identifier":"` + selector + `"}}`
}

func converts(selector, to string) string {
	return `{"action":"CONVERT","selector":{"identifier":"` + selector + `"},"updates":{"identifier":"` + to + `"}}`
}

func TestPoliciesDecideOnSources(t *testing.T) {
	t.Parallel()
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	registry.Push(t, "library/other:latest", image(t, regular("other", "other")))
	other := strings.Replace(busyboxSource, "busybox", "other", 1)
	definition := marshal(t, llb.Image("busybox").File(llb.Mkfile("/made", 0o644, nil)))
	dir := dockerfile(t, "FROM busybox", "COPY Dockerfile /made")
	out := filepath.Join(t.TempDir(), "out")

	t.Run("a denied image of a Dockerfile is shown with its line", func(t *testing.T) {
		r := launchBuild(t, d, dir, policyFile(t, denies("docker-image://docker.io/*"))).wait(t)
		require.Equal(t, 1, r.Code)
		require.Contains(t, r.Stderr, "   1 | >>> FROM busybox")
		require.Contains(t, r.Stderr, `error: failed to solve: busybox: failed to resolve source metadata for docker.io/library/busybox:latest: could not resolve image due to policy: source "`+busyboxSource+`" denied by policy: source denied by policy`)
	})
	t.Run("a denied image of a definition", func(t *testing.T) {
		r := solve(t, d, definition, policyFile(t, denies("*"))).wait(t)
		require.Equal(t, 1, r.Code)
		require.Equal(t, `failed to solve: failed to load LLB: error evaluating the source policy: source "`+busyboxSource+`" denied by policy: source denied by policy`, errorMessage(t, r))
	})
	t.Run("a denied context", func(t *testing.T) {
		r := launchBuild(t, d, dir, policyFile(t, denies("local://*"))).wait(t)
		require.Equal(t, 1, r.Code)
		require.Contains(t, r.Stderr, `source "local://dockerfile" denied by policy`)
	})
	t.Run("another image for a definition", func(t *testing.T) {
		r := requireSolved(t, solve(t, d, definition, policyFile(t, converts(busyboxSource, other)), toLocal(out)))
		require.Contains(t, r.Stderr, other)
		require.Equal(t, "other", read(t, out, "other"))
	})
	t.Run("another image for a Dockerfile", func(t *testing.T) {
		r := d.MustBuildctl(t, harness.DockerfileArgs(dir, policyFile(t, converts("docker-image://docker.io/*/busybox:*", "docker-image://docker.io/$1/other:$2")), toLocal(out))...)
		require.Contains(t, r.Stderr, "FROM docker.io/library/other:latest@sha256:")
		require.Equal(t, "other", read(t, out, "other"))
	})
	t.Run("files in place of an image", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "COPY --from=busybox Dockerfile /copied")
		d.MustBuildctl(t, harness.DockerfileArgs(dir, policyFile(t, converts(busyboxSource, "local://context")), toLocal(out))...)
		require.Equal(t, read(t, dir, "Dockerfile"), read(t, out, "copied"))
		require.Equal(t, read(t, dir, "Dockerfile"), read(t, out, "Dockerfile"))
	})
	t.Run("a circle", func(t *testing.T) {
		r := solve(t, d, definition, policyFile(t, converts(busyboxSource, other), converts(other, busyboxSource))).wait(t)
		require.Contains(t, errorMessage(t, r), "too many mutations on a single source")
	})
	t.Run("a pattern that is none", func(t *testing.T) {
		r := solve(t, d, definition, policyFile(t, `{"action":"DENY","selector":{"identifier":"(","match_type":"REGEX"}}`)).wait(t)
		require.Contains(t, errorMessage(t, r), "invalid pattern in policy: error parsing regexp")
	})
	// What other builds have is denied all the same.
	requireSolved(t, solve(t, d, definition))
	require.Equal(t, 1, solve(t, d, definition, policyFile(t, denies("docker-image://*"))).wait(t).Code)
}

func TestPoliciesOfAFrontendAddToThoseOfItsBuild(t *testing.T) {
	t.Parallel()
	d, _ := startWithRegistry(t, harness.DaemonOptions{})
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	rule := func(action sourcepolicypb.PolicyAction) *sourcepolicypb.Policy {
		return &sourcepolicypb.Policy{Rules: []*sourcepolicypb.Rule{{Action: action, Selector: &sourcepolicypb.Selector{Identifier: busyboxSource}}}}
	}
	allow, deny := rule(sourcepolicypb.PolicyAction_ALLOW), rule(sourcepolicypb.PolicyAction_DENY)
	definition := marshal(t, llb.Image("busybox"))
	local := fsOf(t, dockerfile(t, "FROM busybox", "COPY Dockerfile /made"))
	for name, request := range map[string]func(context.Context, gateway.Client, []*sourcepolicypb.Policy) error{
		"a definition": func(ctx context.Context, g gateway.Client, policies []*sourcepolicypb.Policy) error {
			_, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition, SourcePolicies: policies})
			return err
		},
		"another frontend": func(ctx context.Context, g gateway.Client, policies []*sourcepolicypb.Policy) error {
			_, err := g.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", SourcePolicies: policies})
			return err
		},
		"a resolve": func(ctx context.Context, g gateway.Client, policies []*sourcepolicypb.Policy) error {
			_, err := g.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: busyboxSource}, gateway.ResolveOpt{SourcePolicies: policies})
			return err
		},
	} {
		for _, tc := range []struct {
			name   string
			build  *sourcepolicypb.Policy
			more   *sourcepolicypb.Policy
			denied bool
		}{
			{"none of both", nil, nil, false},
			{"allowed by the build, denied by the frontend", allow, deny, true},
			{"denied by the build, allowed by the frontend", deny, allow, true},
			{"allowed by both", allow, allow, false},
		} {
			t.Run(name+" "+tc.name, func(t *testing.T) {
				opt := buildkit.SolveOpt{SourcePolicy: tc.build, LocalMounts: local}
				_, err := c.Build(t.Context(), opt, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
					var more []*sourcepolicypb.Policy
					if tc.more != nil {
						more = append(more, tc.more)
					}
					return nil, request(ctx, g, more)
				})
				if tc.denied {
					require.ErrorContains(t, err, `source "`+busyboxSource+`" denied by policy`)
				} else {
					require.NoError(t, err)
				}
			})
		}
	}
}

func TestAClientDecidesOnSourcesWhileItBuilds(t *testing.T) {
	t.Parallel()
	d, _ := startWithRegistry(t, harness.DaemonOptions{})
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	local := fsOf(t, dockerfile(t, "FROM busybox", "COPY Dockerfile /made"))
	build := func(check policy.Func) error {
		_, err := c.Solve(t.Context(), nil, buildkit.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: local, CheckSource: check})
		return err
	}
	t.Run("with the configuration of the image", func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]bool{}
		require.NoError(t, build(func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
			source := req.GetSource().GetSource()
			scheme, _, _ := strings.Cut(source.GetIdentifier(), "://")
			if scheme == "docker-image" && req.GetSource().GetImage() == nil {
				return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Request{
					Request: &gatewaypb.ResolveSourceMetaRequest{Source: source},
				}}, nil
			}
			mu.Lock()
			defer mu.Unlock()
			asked[scheme] = asked[scheme] || scheme == "local" || bytes.Contains(req.GetSource().GetImage().GetConfig(), []byte("amd64"))
			return policy.Allow(), nil
		}))
		require.Equal(t, map[string]bool{"local": true, "docker-image": true}, asked)
	})
	t.Run("and tells why it denies one", func(t *testing.T) {
		err := build(func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
			if strings.HasPrefix(req.GetSource().GetSource().GetIdentifier(), "docker-image") {
				return policy.Deny("busybox is not for us"), nil
			}
			return policy.Allow(), nil
		})
		require.ErrorContains(t, err, `source "`+busyboxSource+`" not allowed by policy: action DENY`)
		var deny *status.DenyError
		require.ErrorAs(t, err, &deny)
		require.Equal(t, "busybox is not for us", deny.Messages[0].GetMessage())
	})
	t.Run("and cannot go on asking", func(t *testing.T) {
		err := build(func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
			return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Request{
				Request: &gatewaypb.ResolveSourceMetaRequest{Source: req.GetSource().GetSource()},
			}}, nil
		})
		require.ErrorContains(t, err, "too many policy requests")
	})
	t.Run("a session without a policy allows nothing", func(t *testing.T) {
		opt := buildkit.SolveOpt{SourcePolicySession: "nobody"}
		_, err := c.Solve(t.Context(), marshal(t, llb.Image("busybox")), opt)
		require.ErrorContains(t, err, "no active session for nobody")
	})
}

func TestAClientDecidesOnAnImageByWhatIsSaidOfIt(t *testing.T) {
	t.Parallel()
	const predicate = "https://slsa.dev/provenance/v1"
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	made := dockerfile(t, "FROM busybox", "COPY Dockerfile /made")
	d.MustBuildctl(t, harness.DockerfileArgs(made, "--opt=attest:provenance=version=v1",
		"--output=type=image,name="+registry.Host+"/library/attested:latest,push=true")...)
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()

	// said returns what the client was told of a base image when it had asked.
	said := func(base string) (told *gatewaypb.AttestationChain) {
		t.Helper()
		_, err := c.Solve(t.Context(), nil, buildkit.SolveOpt{
			Frontend: "dockerfile.v0", LocalMounts: fsOf(t, dockerfile(t, "FROM "+base, "COPY Dockerfile /made")),
			CheckSource: func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
				source := req.GetSource().GetSource()
				if !strings.HasPrefix(source.GetIdentifier(), "docker-image://") {
					return policy.Allow(), nil
				}
				if told = req.GetSource().GetImage().GetAttestationChain(); told != nil {
					return policy.Allow(), nil
				}
				return &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Request{
					Request: &gatewaypb.ResolveSourceMetaRequest{
						Source: source, Image: &gatewaypb.ResolveSourceImageRequest{AttestationChain: true, ResolveAttestations: []string{predicate}},
					},
				}}, nil
			},
		})
		require.NoError(t, err)
		return told
	}

	chain := said("attested")
	require.NotEmpty(t, chain.GetAttestationManifest())
	var statements []*gatewaypb.Blob
	for _, b := range chain.GetBlobs() {
		if b.GetDescriptor_().GetAnnotations()["in-toto.io/predicate-type"] == predicate {
			statements = append(statements, b)
		}
	}
	require.Len(t, statements, 1)
	var stated struct {
		PredicateType string
		Subject       []struct{ Digest map[string]string }
	}
	require.NoError(t, json.Unmarshal(statements[0].GetData(), &stated))
	require.Equal(t, predicate, stated.PredicateType)
	require.Equal(t, chain.GetImageManifest(), "sha256:"+stated.Subject[0].Digest["sha256"])

	require.Empty(t, said("busybox").GetAttestationManifest())
}

// fsOf returns what a build of the Dockerfile in dir reads.
func fsOf(t *testing.T, dir string) map[string]fsutil.FS {
	t.Helper()
	tree, err := fsutil.NewFS(dir)
	require.NoError(t, err)
	return map[string]fsutil.FS{"context": tree, "dockerfile": tree}
}
