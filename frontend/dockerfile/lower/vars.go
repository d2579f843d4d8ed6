package lower

import (
	"maps"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/shell"
)

// maxBelow is how many sets of variables may share one another; the next one is a copy.
const maxBelow = 16

// vars are environment variables in the order in which they were first set.
type vars struct {
	// below has what was set before, and does not change any more; often nil.
	below *vars
	depth int
	// keys are those that below does not have.
	keys   []string
	values map[string]string
	// size is how much memory the variables take as a list, in bytes and about.
	size int
}

func newVars() *vars { return &vars{values: map[string]string{}} }

func (v *vars) clone() *vars {
	c := &vars{values: make(map[string]string, len(v.values)), size: v.size}
	v.each(func(n *vars) {
		c.keys = append(c.keys, n.keys...)
		maps.Copy(c.values, n.values)
	})
	return c
}

// extend returns variables that begin with those of v, which is not changed from now on.
func (v *vars) extend() *vars {
	if v.depth >= maxBelow {
		v = v.clone()
	}
	return &vars{below: v, depth: v.depth + 1, values: map[string]string{}, size: v.size}
}

// each calls f for all sets that v shares, the first one first.
func (v *vars) each(f func(*vars)) {
	if v.below != nil {
		v.below.each(f)
	}
	f(v)
}

// Get implements shell.Env.
func (v *vars) Get(key string) (string, bool) {
	for ; v != nil; v = v.below {
		if value, ok := v.values[key]; ok {
			return value, true
		}
	}
	return "", false
}

// entrySize is what a variable takes besides its name and value, in bytes and about.
const entrySize = 16

func (v *vars) set(key, value string) {
	if old, ok := v.Get(key); ok {
		v.size += len(value) - len(old)
	} else {
		v.size += len(key) + len(value) + entrySize
		v.keys = append(v.keys, key)
	}
	v.values[key] = value
}

// setList sets variables given as "key=value".
func (v *vars) setList(list []string) {
	for _, kv := range list {
		if key, value, _ := strings.Cut(kv, "="); key != "" {
			v.set(key, value)
		}
	}
}

// names returns the keys in order.
func (v *vars) names() []string {
	if v.below == nil {
		return slices.Clip(v.keys)
	}
	var out []string
	v.each(func(n *vars) { out = append(out, n.keys...) })
	return out
}

// list returns "key=value" in order; nil if there are none.
func (v *vars) list() []string {
	var out []string
	for _, key := range v.names() {
		value, _ := v.Get(key)
		out = append(out, key+"="+value)
	}
	return out
}

// masked shows some variables with another value.
type masked struct {
	shell.Env
	mask map[string]string
}

func (m masked) Get(key string) (string, bool) {
	if v, ok := m.mask[key]; ok {
		return v, true
	}
	return m.Env.Get(key)
}

// lexer makes the lexers of a file.
type lexer struct{ escape byte }

// word expands words of instructions.
func (l lexer) word() shell.Lexer { return shell.Lexer{Escape: l.escape} }

// script expands commands for display: what the shell will do stays as it is written.
func (l lexer) script() shell.Lexer {
	return shell.Lexer{Escape: l.escape, RawQuotes: true, RawEscapes: true, SkipUnset: true}
}

// heredoc expands the bodies of here-documents.
func (l lexer) heredoc() shell.Lexer { return shell.Lexer{Escape: l.escape, Heredoc: true} }
