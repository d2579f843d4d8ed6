package policy_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/solver/policy"
)

// FuzzEvaluate holds that a policy, whatever it says, is refused or decides; that a source which rules
// made is allowed by the same rules; and that what was asked for is not changed.
func FuzzEvaluate(f *testing.F) {
	f.Add(`{"rules":[`+denyAll+`,`+allowBusy+`]}`, "docker-image://busybox", "image.resolvemode", "pull")
	f.Add(`{"rules":[`+convert(`"identifier":"git://*"`, `"identifier":"git://mirror/$1"`)+`]}`, "git://example.com/x#main", "git.fullurl", "https://u:p@example.com/x")
	f.Add(`{"rules":[`+convert(`"identifier":"(.*)","match_type":"REGEX"`, `"identifier":"$1$1"`)+`]}`, "local://x", "", "")
	f.Add(`{"rules":[`+constrained(`{"key":"k","value":"^v","condition":"MATCHES"}`)+`]}`, "https://x/", "k", "v")
	f.Add(`{"rules":[{"action":"CONVERT","selector":{"identifier":""},"updates":{"attrs":{"a":"b"}}}]}`, "", "", "")
	f.Fuzz(func(t *testing.T, text, id, key, value string) {
		p := &sourcepolicypb.Policy{}
		if protojson.Unmarshal([]byte(text), p) != nil {
			t.Skip()
		}
		set, err := policy.New([]*sourcepolicypb.Policy{p}, nil)
		if err != nil {
			return
		}
		op := &pb.SourceOp{Identifier: id, Attrs: map[string]string{key: value}}
		out, err := set.Evaluate(t.Context(), op, ocispec.Platform{})
		if op.Identifier != id || len(op.Attrs) != 1 || op.Attrs[key] != value {
			t.Fatal("the source that was asked for was changed")
		}
		if err != nil {
			return
		}
		again, err := set.Evaluate(t.Context(), out, ocispec.Platform{})
		if err != nil || again != out {
			t.Fatalf("%q is the result and not allowed: %v", out.Identifier, err)
		}
	})
}
