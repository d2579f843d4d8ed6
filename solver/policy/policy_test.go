package policy_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/policy"
)

// parse reads policies as users write them.
func parse(t testing.TB, texts ...string) []*sourcepolicypb.Policy {
	t.Helper()
	var all []*sourcepolicypb.Policy
	for _, text := range texts {
		p := &sourcepolicypb.Policy{}
		require.NoError(t, protojson.Unmarshal([]byte(`{"rules":[`+text+`]}`), p))
		all = append(all, p)
	}
	return all
}

func evaluate(t *testing.T, op *pb.SourceOp, texts ...string) (*pb.SourceOp, error) {
	t.Helper()
	set, err := policy.New(parse(t, texts...), nil)
	require.NoError(t, err)
	return set.Evaluate(t.Context(), op, ocispec.Platform{})
}

func source(id string, attrs ...string) *pb.SourceOp {
	op := &pb.SourceOp{Identifier: id}
	for i := 0; i < len(attrs); i += 2 {
		if op.Attrs == nil {
			op.Attrs = map[string]string{}
		}
		op.Attrs[attrs[i]] = attrs[i+1]
	}
	return op
}

const (
	denyAll   = `{"action":"DENY","selector":{"identifier":"*"}}`
	busybox   = "docker-image://docker.io/library/busybox:latest"
	allowBusy = `{"action":"ALLOW","selector":{"identifier":"` + busybox + `"}}`
	denyBusy  = `{"action":"DENY","selector":{"identifier":"docker-image://docker.io/library/busybox*"}}`
)

func TestSourcesAreAllowedAndDenied(t *testing.T) {
	for name, tc := range map[string]struct {
		op       *pb.SourceOp
		policies []string
		denied   string
	}{
		"nobody speaks of it":                      {source("local://context"), []string{denyBusy}, ""},
		"no policies":                              {source(busybox), nil, ""},
		"a wildcard":                               {source(busybox), []string{denyBusy}, busybox},
		"the last rule decides":                    {source(busybox), []string{denyAll + "," + allowBusy}, ""},
		"the last rule denies":                     {source(busybox), []string{allowBusy + "," + denyAll}, busybox},
		"another policy cannot allow it":           {source(busybox), []string{denyBusy, allowBusy}, busybox},
		"a later policy denies it":                 {source(busybox), []string{allowBusy, denyBusy}, busybox},
		"a short name of an image":                 {source("docker-image://busybox"), []string{denyBusy}, busybox},
		"an image with a digest is another":        {source(busybox + "@sha256:" + strings.Repeat("a", 64)), []string{denyAll + "," + allowBusy}, busybox + "@sha256:" + strings.Repeat("a", 64)},
		"a wildcard is anchored":                   {source(busybox), []string{`{"action":"DENY","selector":{"identifier":"busybox*"}}`}, ""},
		"a wildcard has no other signs":            {source(busybox), []string{`{"action":"DENY","selector":{"identifier":"docker-image://docker.io/library/busybo?:[l]atest"}}`}, ""},
		"a wildcard takes line breaks":             {source("local://a\nb"), []string{denyAll}, "local://a\nb"},
		"exact":                                    {source(busybox), []string{`{"action":"DENY","selector":{"identifier":"` + busybox + `","match_type":"EXACT"}}`}, busybox},
		"exact has no wildcards":                   {source(busybox), []string{`{"action":"DENY","selector":{"identifier":"*","match_type":"EXACT"}}`}, ""},
		"a regular expression anywhere":            {source(busybox), []string{`{"action":"DENY","selector":{"identifier":"busy[a-c]ox","matchType":"REGEX"}}`}, busybox},
		"the text of a regular expression":         {source("local://a+"), []string{`{"action":"DENY","selector":{"identifier":"local://a+","match_type":"REGEX"}}`}, "local://a+"},
		"all constraints hold":                     {source("https://x/", "a", "1", "b", "2"), []string{constrained(`{"key":"a","value":"1"},{"key":"b","value":"1","condition":"NOTEQUAL"}`)}, "https://x/"},
		"one constraint does not":                  {source("https://x/", "a", "1", "b", "1"), []string{constrained(`{"key":"a","value":"1"},{"key":"b","value":"1","condition":"NOTEQUAL"}`)}, ""},
		"a constraint matches":                     {source("https://x/", "http.checksum", "sha256:aa"), []string{constrained(`{"key":"http.checksum","value":"^sha256:","condition":"MATCHES"}`)}, "https://x/"},
		"an attribute that is not set has no text": {source("https://x/"), []string{constrained(`{"key":"http.checksum","value":"^$","condition":"MATCHES"},{"key":"a"}`)}, "https://x/"},
		"the repository that is fetched":           {source("git://example.com/good.git#main", "git.fullurl", "https://u:p@example.com/evil.git"), []string{`{"action":"DENY","selector":{"identifier":"git://example.com/evil*"}}`}, "git://example.com/evil.git#main"},
		"a repository by ssh":                      {source("git://x", "git.fullurl", "git@example.com:evil.git"), []string{`{"action":"DENY","selector":{"identifier":"git://example.com/evil*"}}`}, "git://example.com/evil.git"},
		"no credentials are shown":                 {source("https://user:pass@example.com/"), []string{denyAll}, "https://xxxxx@example.com/"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := evaluate(t, tc.op, tc.policies...)
			if tc.denied == "" {
				require.NoError(t, err)
				require.Same(t, tc.op, got)
				return
			}
			require.ErrorContains(t, err, " denied by policy: source denied by policy")
			require.ErrorContains(t, err, strings.ReplaceAll(tc.denied, "\n", `\n`))
			require.ErrorIs(t, err, policy.ErrDenied)
			require.Equal(t, codes.PermissionDenied, status.Code(err))
		})
	}
}

func constrained(constraints string) string {
	return `{"action":"DENY","selector":{"identifier":"*","constraints":[` + constraints + `]}}`
}

func convert(selector, updates string) string {
	return `{"action":"CONVERT","selector":{` + selector + `},"updates":{` + updates + `}}`
}

func TestSourcesAreConverted(t *testing.T) {
	for name, tc := range map[string]struct {
		op, want *pb.SourceOp
		policies []string
	}{
		"to another image": {
			source("docker-image://busybox"), source("docker-image://mirror.example.com/busybox"),
			[]string{convert(`"identifier":"`+busybox+`"`, `"identifier":"docker-image://mirror.example.com/busybox"`)},
		},
		"what a wildcard took is inserted": {
			source("docker-image://busybox"), source("docker-image://mirror.example.com/busybox:v-latest"),
			[]string{convert(`"identifier":"docker-image://docker.io/*/*:*"`, `"identifier":"docker-image://mirror.example.com/${2}:v-$3"`)},
		},
		"what a regular expression took is inserted": {
			source(busybox), source("docker-image://mirror.example.com/busybox:latest"),
			[]string{convert(`"identifier":"^docker-image://docker.io/library/(?P<name>.*)$","match_type":"REGEX"`, `"identifier":"docker-image://mirror.example.com/${name}"`)},
		},
		"a regular expression replaces what it found": {
			source("https://a.example.com/a.example.com"), source("https://b/b"),
			[]string{convert(`"identifier":"a\\.example\\.com","match_type":"REGEX"`, `"identifier":"b"`)},
		},
		"to another scheme, with attributes": {
			source("https://example.com/x", "http.perm", "0644", "http.checksum", "sha256:00"),
			source("docker-image+blob://example.com/x@sha256:00", "http.perm", "0644", "http.checksum", "sha256:00", "http.filename", "x"),
			[]string{convert(`"identifier":"https://example.com/x"`, `"identifier":"docker-image+blob://example.com/x@sha256:00","attrs":{"http.filename":"x"}`)},
		},
		"attributes alone": {
			source("https://example.com/x"), source("https://example.com/x", "http.checksum", "sha256:00"),
			[]string{convert(`"identifier":"https://*"`, `"attrs":{"http.checksum":"sha256:00"}`)},
		},
		"a conversion to the same ends nothing": {
			source(busybox), source("docker-image://b"),
			[]string{convert(`"identifier":"docker-image://docker.io/library/busybox*"`, `"identifier":"`+busybox+`"`) + "," +
				convert(`"identifier":"`+busybox+`"`, `"identifier":"docker-image://b"`)},
		},
		"the new source is asked for from the first policy on": {
			source(busybox), source("docker-image://c"),
			[]string{
				convert(`"identifier":"docker-image://docker.io/library/b:latest"`, `"identifier":"docker-image://c"`),
				denyBusy + "," + convert(`"identifier":"`+busybox+`"`, `"identifier":"docker-image://b"`),
			},
		},
		"another repository is what is fetched": {
			source("git://example.com/a.git", "git.fullurl", "https://example.com/a.git", "git.checksum", "0"), source("git://mirror/a.git", "git.checksum", "0"),
			[]string{convert(`"identifier":"git://example.com/*"`, `"identifier":"git://mirror/$1"`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := tc.op.String()
			got, err := evaluate(t, tc.op, tc.policies...)
			require.NoError(t, err)
			require.Equal(t, tc.want.Identifier, got.Identifier)
			require.Equal(t, tc.want.Attrs, got.Attrs)
			require.Equal(t, before, tc.op.String(), "the op that was asked for stays")
		})
	}
}

func TestAConvertedSourceMayBeDenied(t *testing.T) {
	_, err := evaluate(t, source("docker-image://a"), denyBusy+","+convert(`"identifier":"docker-image://docker.io/library/a:latest"`, `"identifier":"`+busybox+`"`))
	require.EqualError(t, err, `source "`+busybox+`" denied by policy: source denied by policy`)
}

func TestConversionsEnd(t *testing.T) {
	for name, policies := range map[string]string{
		"in a circle": convert(`"identifier":"local://a"`, `"identifier":"local://b"`) + "," + convert(`"identifier":"local://b"`, `"identifier":"local://a"`),
		"that grow":   convert(`"identifier":"local://*"`, `"identifier":"local://x$1"`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := evaluate(t, source("local://a"), policies)
			require.EqualError(t, err, "too many mutations on a single source")
		})
	}
	t.Run("that double", func(t *testing.T) {
		_, err := evaluate(t, source("local://"+strings.Repeat("a", 1000)), convert(`"identifier":"local://*"`, `"identifier":"local://$1$1"`))
		require.EqualError(t, err, "the identifier of a source is longer than 8192 bytes")
	})
	t.Run("that match everywhere", func(t *testing.T) {
		_, err := evaluate(t, source("local://"+strings.Repeat("a", 8000)),
			convert(`"identifier":"a","match_type":"REGEX"`, `"identifier":"`+strings.Repeat("b", 8000)+`"`))
		require.EqualError(t, err, "the identifier of a source is longer than 8192 bytes")
	})
	t.Run("of a source that is too long to be read", func(t *testing.T) {
		_, err := evaluate(t, source("local://"+strings.Repeat("a", 1<<20)), denyBusy)
		require.EqualError(t, err, "the identifier of a source is longer than 8192 bytes")
	})
	t.Run("and take no longer than anybody waits", func(t *testing.T) {
		p := &sourcepolicypb.Policy{Rules: slices.Repeat([]*sourcepolicypb.Rule{regex("(x+x+)+y"), regex(strings.Repeat("(a?)", 1000) + "b")}, 3)}
		set, err := policy.New([]*sourcepolicypb.Policy{p}, nil)
		require.NoError(t, err)
		out, err := set.Evaluate(t.Context(), source(strings.Repeat("x", 4000)+strings.Repeat("a", 4000)), ocispec.Platform{})
		require.NoError(t, err)
		require.NotNil(t, out)
	})
	t.Run("with their build", func(t *testing.T) {
		set, err := policy.New(parse(t, denyBusy), nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = set.Evaluate(ctx, source(busybox), ocispec.Platform{})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestBadRulesAreNamed(t *testing.T) {
	selector := &sourcepolicypb.Selector{Identifier: "x"}
	for text, p := range map[string]*sourcepolicypb.Policy{
		"invalid nil source policy":             nil,
		"invalid nil rule in policy":            {Rules: []*sourcepolicypb.Rule{nil}},
		"invalid nil selector in policy":        {Rules: []*sourcepolicypb.Rule{{}}},
		"invalid nil constraint in policy":      {Rules: []*sourcepolicypb.Rule{{Selector: &sourcepolicypb.Selector{Constraints: []*sourcepolicypb.AttrConstraint{nil}}}}},
		"unknown source policy action 7":        {Rules: []*sourcepolicypb.Rule{{Action: 7, Selector: selector}}},
		"unknown match type 7 in policy":        {Rules: []*sourcepolicypb.Rule{{Selector: &sourcepolicypb.Selector{MatchType: 7}}}},
		"unknown condition 7 of a constraint":   {Rules: []*sourcepolicypb.Rule{{Selector: &sourcepolicypb.Selector{Constraints: []*sourcepolicypb.AttrConstraint{{Condition: 7}}}}}},
		`rule for "x" converts sources, but`:    {Rules: []*sourcepolicypb.Rule{{Action: sourcepolicypb.PolicyAction_CONVERT, Selector: selector}}},
		"missing closing ]":                     {Rules: []*sourcepolicypb.Rule{regex("[")}},
		"pattern of 100000 bytes in policy":     {Rules: []*sourcepolicypb.Rule{regex(strings.Repeat("x", 100_000))}},
		"the patterns of the policies are too":  {Rules: slices.Repeat([]*sourcepolicypb.Rule{regex(strings.Repeat("x{1000}", 100))}, 3)},
		"error parsing regexp: missing closing": {Rules: []*sourcepolicypb.Rule{{Selector: &sourcepolicypb.Selector{Constraints: []*sourcepolicypb.AttrConstraint{{Value: "(", Condition: sourcepolicypb.AttrMatch_MATCHES}}}}}},
	} {
		_, err := policy.New([]*sourcepolicypb.Policy{p}, nil)
		require.ErrorContains(t, err, text)
		require.Equal(t, codes.InvalidArgument, status.Code(err), text)
	}
}

func regex(text string) *sourcepolicypb.Rule {
	return &sourcepolicypb.Rule{Selector: &sourcepolicypb.Selector{Identifier: text, MatchType: sourcepolicypb.MatchType_REGEX}}
}

func TestASetIsNotChangedByAddingToIt(t *testing.T) {
	base, err := policy.New(parse(t, allowBusy), nil)
	require.NoError(t, err)
	strict, err := base.With(parse(t, denyBusy))
	require.NoError(t, err)
	other, err := base.With(parse(t, `{"action":"DENY","selector":{"identifier":"local://*"}}`))
	require.NoError(t, err)
	for set, denied := range map[*policy.Set]string{strict: busybox, other: "local://x"} {
		for _, id := range []string{busybox, "local://x"} {
			_, err = set.Evaluate(t.Context(), source(id), ocispec.Platform{})
			require.Equal(t, id == denied, err != nil)
		}
	}
	var none *policy.Set
	_, err = none.Evaluate(t.Context(), source(busybox), ocispec.Platform{})
	require.NoError(t, err)
	none, err = none.With(parse(t, denyBusy))
	require.NoError(t, err)
	_, err = none.Evaluate(t.Context(), source(busybox), ocispec.Platform{})
	require.ErrorIs(t, err, policy.ErrDenied)
}

func TestSetsThatDecideAlikeHaveOneID(t *testing.T) {
	set := func(c policy.Client, texts ...string) string {
		t.Helper()
		s, err := policy.New(parse(t, texts...), c)
		require.NoError(t, err)
		return s.ID()
	}
	var none *policy.Set
	require.Empty(t, none.ID())
	require.Empty(t, set(nil))
	both, err := policy.New(parse(t, allowBusy), nil)
	require.NoError(t, err)
	both, err = both.With(parse(t, denyBusy))
	require.NoError(t, err)
	require.Equal(t, both.ID(), set(nil, allowBusy, denyBusy))
	all := []string{
		"", set(nil, denyBusy), set(nil, allowBusy), set(nil, allowBusy, denyBusy), set(nil, denyBusy, allowBusy),
		set(&client{id: "a"}), set(&client{id: "b"}), set(&client{id: "a"}, denyBusy),
	}
	slices.Sort(all)
	require.Len(t, slices.Compact(all), 8)
}
