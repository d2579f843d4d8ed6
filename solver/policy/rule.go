package policy

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/distribution/reference"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
)

const (
	// maxPattern bounds patterns in bytes.
	maxPattern = 16 << 10
	// maxProgram bounds the sum of all patterns of a set in instructions of the machines that they are
	// compiled to. One of ten bytes may have thousands. Each takes some 50 bytes, and may be executed
	// for each byte of an identifier.
	maxProgram = 1 << 18
)

// patterns counts the instructions of the patterns of a set.
type patterns int

// rule is a checked rule of a policy.
type rule struct {
	action      sourcepolicypb.PolicyAction
	text        string
	pattern     *regexp.Regexp // nil if only text itself matches
	constraints []constraint
	updates     *sourcepolicypb.Update
}

type constraint struct {
	key, value string
	condition  sourcepolicypb.AttrMatch
	pattern    *regexp.Regexp
}

func (p *patterns) rule(in *sourcepolicypb.Rule) (*rule, error) {
	switch {
	case in == nil:
		return nil, invalid("invalid nil rule in policy")
	case in.Selector == nil:
		return nil, invalid("invalid nil selector in policy")
	}
	r := &rule{action: in.Action, text: in.Selector.Identifier, updates: in.Updates}
	if _, ok := sourcepolicypb.PolicyAction_name[int32(in.Action)]; !ok {
		return nil, invalid("unknown source policy action %d", in.Action)
	}
	if in.Action == sourcepolicypb.PolicyAction_CONVERT && in.Updates == nil {
		return nil, invalid("rule for %q converts sources, but does not say to what", r.text)
	}
	var err error
	if r.pattern, err = p.selector(in.Selector); err != nil {
		return nil, err
	}
	for _, c := range in.Selector.Constraints {
		compiled, err := p.constraint(c)
		if err != nil {
			return nil, err
		}
		r.constraints = append(r.constraints, compiled)
	}
	return r, nil
}

func (p *patterns) selector(s *sourcepolicypb.Selector) (*regexp.Regexp, error) {
	switch s.MatchType {
	case sourcepolicypb.MatchType_EXACT:
		return nil, nil
	case sourcepolicypb.MatchType_REGEX:
		return p.compile(s.Identifier)
	case sourcepolicypb.MatchType_WILDCARD:
		if !strings.Contains(s.Identifier, "*") {
			return nil, nil
		}
		parts := strings.Split(s.Identifier, "*")
		for i, text := range parts {
			parts[i] = regexp.QuoteMeta(text)
		}
		return p.compile("(?s)^" + strings.Join(parts, "(.*?)") + "$")
	}
	return nil, invalid("unknown match type %d in policy", s.MatchType)
}

func (p *patterns) constraint(c *sourcepolicypb.AttrConstraint) (constraint, error) {
	if c == nil {
		return constraint{}, invalid("invalid nil constraint in policy")
	}
	out := constraint{key: c.Key, value: c.Value, condition: c.Condition}
	switch c.Condition {
	case sourcepolicypb.AttrMatch_EQUAL, sourcepolicypb.AttrMatch_NOTEQUAL:
		return out, nil
	case sourcepolicypb.AttrMatch_MATCHES:
		var err error
		out.pattern, err = p.compile(c.Value)
		return out, err
	}
	return out, invalid("unknown condition %d of a constraint in policy", c.Condition)
}

func (p *patterns) compile(text string) (*regexp.Regexp, error) {
	if len(text) > maxPattern {
		return nil, invalid("pattern of %d bytes in policy, the longest may have %d", len(text), maxPattern)
	}
	size, err := programSize(text)
	if err != nil {
		return nil, fmt.Errorf("invalid pattern in policy: %w", err)
	}
	if *p += patterns(size); *p > maxProgram {
		return nil, invalid("the patterns of the policies are too large")
	}
	return regexp.Compile(text)
}

// programSize returns how many instructions a regular expression is compiled to.
func programSize(text string) (int, error) {
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return 0, err
	}
	return len(prog.Inst), nil
}

// matches tells whether the rule speaks of a source with an identifier and attributes.
func (r *rule) matches(id string, attrs map[string]string) bool {
	for _, c := range r.constraints {
		if !c.holds(attrs[c.key]) {
			return false
		}
	}
	return id == r.text || r.pattern != nil && r.pattern.MatchString(id)
}

// holds tells whether the constraint allows a value; an attribute that is not set has none.
func (c *constraint) holds(value string) bool {
	switch c.condition {
	case sourcepolicypb.AttrMatch_EQUAL:
		return value == c.value
	case sourcepolicypb.AttrMatch_NOTEQUAL:
		return value != c.value
	default:
		return c.pattern.MatchString(value)
	}
}

// convert returns what the rule makes of a source that it matches; nil if that is the same.
func (r *rule) convert(op *pb.SourceOp, id string) (*pb.SourceOp, error) {
	to, err := r.target(id)
	if err != nil {
		return nil, err
	}
	next := &pb.SourceOp{Identifier: op.Identifier, Attrs: maps.Clone(op.Attrs)}
	if to != id {
		next.Identifier = to
		// The url in full would win over the identifier.
		delete(next.Attrs, pb.AttrGitFullURL)
	}
	for k, v := range r.updates.Attrs {
		if next.Attrs == nil {
			next.Attrs = map[string]string{}
		}
		next.Attrs[k] = v
	}
	if proto.Equal(next, op) {
		return nil, nil
	}
	return next, nil
}

// target returns the identifier that the rule gives to one that it matches. A rule that names none
// changes attributes only.
func (r *rule) target(id string) (string, error) {
	to := r.updates.Identifier
	if to == "" {
		return id, nil
	}
	if r.pattern == nil || !r.pattern.MatchString(id) {
		return to, nil
	}
	// This is ReplaceAllString, with a bound: groups may be inserted many times.
	groups := strings.Count(to, "$")
	var out []byte
	end := 0
	for _, m := range r.pattern.FindAllStringSubmatchIndex(id, -1) {
		if len(out)+len(to)+groups*(m[1]-m[0]) > maxIdentifier {
			return "", errTooLong
		}
		out = append(out, id[end:m[0]]...)
		out = r.pattern.ExpandString(out, to, id, m)
		end = m[1]
	}
	return string(append(out, id[end:]...)), nil
}

// identifier returns the identifier of a source as rules see it: with the image's registry and tag,
// and of the repository that would be fetched, without credentials.
func identifier(op *pb.SourceOp) string {
	id := op.GetIdentifier()
	scheme, ref, _ := strings.Cut(id, "://")
	scheme += "://"
	switch scheme {
	case pb.SchemeImage, pb.SchemeImageBlob:
		if named, err := reference.ParseNormalizedNamed(ref); err == nil {
			return scheme + reference.TagNameOnly(named).String()
		}
	case pb.SchemeGit:
		return gitIdentifier(id, ref, op.GetAttrs()[pb.AttrGitFullURL])
	}
	return id
}

// gitIdentifier follows the url in full if there is one, as that is what is fetched.
func gitIdentifier(id, ref, full string) string {
	remote, fragment, hasFragment := strings.Cut(ref, "#")
	remote = cmp.Or(full, remote)
	if !giturl.HasScheme(remote) && !giturl.IsShort(remote) {
		remote = giturl.HTTPS + "://" + remote
	}
	u, err := giturl.Parse(remote)
	if err != nil {
		return id // nor can it be fetched
	}
	id = pb.SchemeGit + u.ID()
	if hasFragment {
		id += "#" + fragment
	}
	return id
}
