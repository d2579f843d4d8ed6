package lower

import (
	"maps"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/shell"
)

// vars are environment variables in the order in which they were first set.
type vars struct {
	keys   []string
	values map[string]string
}

func newVars() *vars { return &vars{values: map[string]string{}} }

func (v *vars) clone() *vars {
	return &vars{keys: slices.Clip(v.keys), values: maps.Clone(v.values)}
}

// Get implements shell.Env.
func (v *vars) Get(key string) (string, bool) {
	value, ok := v.values[key]
	return value, ok
}

func (v *vars) set(key, value string) {
	if _, ok := v.values[key]; !ok {
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

// list returns "key=value" in order; nil if there are none.
func (v *vars) list() []string {
	var out []string
	for _, key := range v.keys {
		out = append(out, key+"="+v.values[key])
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
