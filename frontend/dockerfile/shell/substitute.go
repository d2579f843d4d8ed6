package shell

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// dollar reads a reference to a variable.
func (s *scanner) dollar() (string, error) {
	start := s.pos
	s.next()
	if s.peek() != '{' {
		name := s.name()
		if name == "" {
			return "$", nil
		}
		value, set := s.env.Get(name)
		s.note(name, set)
		if !set && s.SkipUnset {
			return s.in[start:s.pos], nil
		}
		return value, nil
	}
	s.next()
	if s.depth++; s.depth > maxDepth {
		return "", fmt.Errorf("syntax error: substitutions are nested more than %d levels deep", maxDepth)
	}
	defer func() { s.depth-- }()
	name := s.name()
	if name == "" {
		return "", errors.New("syntax error: bad substitution")
	}
	value, set := s.env.Get(name)
	text, err := s.braced(name, value, set)
	if err != nil {
		return "", err
	}
	if !set && s.SkipUnset {
		return s.in[start:s.pos], nil
	}
	return text, nil
}

// braced reads what follows the name in ${name...}, up to and with the closing brace.
func (s *scanner) braced(name, value string, set bool) (string, error) {
	if s.peek() == eof {
		return "", missing("}")
	}
	switch op := s.next(); op {
	case "}":
		s.note(name, set)
		return value, nil
	case ":":
		switch s.peek() {
		case '-', '+', '?':
			return s.conditional(name, value, set, s.next(), value != "")
		case eof:
			return "", missing("}")
		}
		return "", fmt.Errorf("unsupported modifier (:%s) in substitution", s.next())
	case "-", "+", "?":
		return s.conditional(name, value, set, op, set)
	case "#", "%":
		text, err := s.trim(op, value)
		if err == nil {
			s.note(name, set)
		}
		return text, err
	case "/":
		text, err := s.replace(value)
		if err == nil {
			s.note(name, set)
		}
		return text, err
	default:
		return "", fmt.Errorf("unsupported modifier (%s) in substitution", op)
	}
}

// conditional handles the operators that choose between the value and a word. present tells
// whether the value counts as one.
func (s *scanner) conditional(name, value string, set bool, op string, present bool) (string, error) {
	word, err := s.scan("}")
	if err != nil {
		return "", err
	}
	s.next()
	s.note(name, set)
	switch {
	case op == "+" && present:
		return word, nil
	case op == "+":
		return "", nil
	case present:
		return value, nil
	case op == "-":
		return word, nil
	case s.SkipUnset:
		return value, nil
	case word != "":
		return "", fmt.Errorf("%s: %s", name, word)
	case set:
		return "", fmt.Errorf("%s: is not allowed to be empty", name)
	default:
		return "", fmt.Errorf("%s: is not allowed to be unset", name)
	}
}

// trim handles # ## % and %%.
func (s *scanner) trim(op, value string) (string, error) {
	longest := false
	if s.pos < len(s.in) && s.in[s.pos:s.pos+1] == op {
		s.next()
		longest = true
	}
	pattern, err := s.pattern("}")
	if err != nil {
		return "", err
	}
	s.next()
	if op == "#" {
		return trimPrefix(value, pattern, longest), nil
	}
	return trimSuffix(value, pattern, longest), nil
}

// replace handles / and //.
func (s *scanner) replace(value string) (string, error) {
	all := false
	if s.peek() == '/' {
		s.next()
		all = true
	}
	pattern, err := s.pattern("/}")
	if err != nil {
		return "", err
	}
	if s.next() != "/" {
		return "", errors.New("syntax error: missing '/' in ${}")
	}
	replacement, err := s.scan("}")
	if err != nil {
		return "", err
	}
	s.next()
	return replace(value, pattern, replacement, all)
}

// pattern reads a pattern, in which escapes keep their meaning for the match.
func (s *scanner) pattern(stop string) (string, error) {
	raw := s.RawEscapes
	s.RawEscapes = true
	defer func() { s.RawEscapes = raw }()
	text, err := s.scan(stop)
	switch {
	case err != nil && stop == "/}" && !errors.Is(err, errTooLong):
		return "", errors.New("syntax error: missing '/' in ${}")
	case len(text) > maxPattern:
		return "", fmt.Errorf("a pattern is longer than %d bytes", maxPattern)
	}
	return text, err
}

// name reads the name of a variable: letters, digits and underscores, a number, or one of the
// special parameters of a shell. It is empty if there is none.
func (s *scanner) name() string {
	start := s.pos
	switch c := s.peek(); {
	case c >= '0' && c <= '9':
		for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
			s.next()
		}
	case c != eof && strings.ContainsRune("@*#?-$!", c):
		s.next()
	default:
		for c := s.peek(); c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c); c = s.peek() {
			s.next()
		}
	}
	return s.in[start:s.pos]
}

// note records a variable of a reference that was read to its end.
func (s *scanner) note(name string, set bool) {
	if s.seen[name] {
		return
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[name] = true
	if set {
		s.matched = append(s.matched, name)
	} else {
		s.unmatched = append(s.unmatched, name)
	}
}
