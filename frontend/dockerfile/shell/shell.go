// Package shell expands variables in the words of a Dockerfile.
//
// The language is the part of the POSIX shell's parameter expansion that Dockerfiles have:
// quotes, escapes, $name and ${name} with the operators :- - :+ + :? ? # ## % %% / and //. There
// is no command substitution, no arithmetic and no field splitting unless asked for. Package
// lower calls it with the environment of a stage; it does no I/O.
//
// Time is linear in the length of the word and its result for each level of nesting. Nesting and the
// length of the result are limited.
package shell

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxLength is the length in bytes of the longest text that a word may become. Variables that
	// hold one another twice would double with every instruction.
	MaxLength = 16 << 20
	// maxDepth is how deep substitutions may nest.
	maxDepth = 64
	// maxPattern is the length in bytes of the longest pattern; what is made of one for the search
	// takes about a hundred times as much.
	maxPattern = 64 << 10
)

var errTooLong = fmt.Errorf("the result is longer than %d bytes", MaxLength)

// Env is a set of variables.
type Env interface {
	// Get returns the value of a variable and whether it is set.
	Get(name string) (string, bool)
}

// Lexer expands words. The zero Escape is a backslash. A Lexer is a value and may be used by
// several goroutines.
type Lexer struct {
	// Escape takes the meaning from the character after it.
	Escape byte
	// RawQuotes keeps quotes in the result, though they quote; RawEscapes does so with escapes.
	RawQuotes, RawEscapes bool
	// SkipUnset leaves references to variables that are not set as they are written.
	SkipUnset bool
	// Heredoc reads the word as the body of a here-document: quotes have no meaning, and the
	// escape character has one only before a dollar sign or itself.
	Heredoc bool
	// Split splits the result into Fields.
	Split bool
}

// Result is an expanded word.
type Result struct {
	// Text is the word as one string, Fields the same split at blanks that are not quoted, if that
	// was asked for.
	Text   string
	Fields []string
	// Matched and Unmatched are the variables that the word names, set and not set, each once
	// and in the order in which their references end.
	Matched, Unmatched []string
}

// Expand expands word. Errors name the word; the Result then has only the variables that were seen
// before the error.
func (l Lexer) Expand(word string, env Env) (Result, error) {
	if l.Escape == 0 {
		l.Escape = '\\'
	}
	s := &scanner{Lexer: l, in: word, env: env}
	text, err := s.scan("")
	r := Result{Matched: s.matched, Unmatched: s.unmatched}
	if err != nil {
		return r, fmt.Errorf("failed to process %q: %w", word, err)
	}
	s.endField()
	r.Text, r.Fields = text, s.fields
	return r, nil
}

// Word returns the Text of Expand.
func (l Lexer) Word(word string, env Env) (string, error) {
	r, err := l.Expand(word, env)
	return r.Text, err
}

type scanner struct {
	Lexer
	in    string
	pos   int
	depth int
	env   Env

	field   strings.Builder
	inField bool
	fields  []string

	seen               map[string]bool
	matched, unmatched []string
}

// eof is what peek and next return at the end.
const eof = rune(-1)

func (s *scanner) peek() rune {
	if s.pos >= len(s.in) {
		return eof
	}
	r, _ := utf8.DecodeRuneInString(s.in[s.pos:])
	return r
}

// next returns the next character as it is in the word: bytes that are not UTF-8 stay as they are.
func (s *scanner) next() string {
	_, size := utf8.DecodeRuneInString(s.in[s.pos:])
	c := s.in[s.pos : s.pos+size]
	s.pos += size
	return c
}

// scan expands up to one of the characters of stop, which it leaves, or to the end of the word.
func (s *scanner) scan(stop string) (string, error) {
	var out strings.Builder
	for {
		c := s.peek()
		if c == eof {
			if stop != "" {
				return "", missing(stop)
			}
			return out.String(), nil
		}
		if stop != "" && strings.ContainsRune(stop, c) {
			return out.String(), nil
		}
		var (
			text   string
			quoted bool
			err    error
		)
		switch {
		case c == '$':
			text, err = s.dollar()
		case c == rune(s.Escape):
			text, quoted = s.escape(stop)
		case s.Heredoc:
			text, quoted = s.next(), true
		case c == '\'':
			text, err = s.singleQuotes()
			quoted = true
		case c == '"':
			text, err = s.doubleQuotes()
			quoted = true
		default:
			text = s.next()
		}
		if err == nil && out.Len()+len(text) > MaxLength {
			err = errTooLong
		}
		if err != nil {
			return "", err
		}
		out.WriteString(text)
		if s.Split && s.depth == 0 {
			s.addToField(text, quoted)
		}
	}
}

func missing(stop string) error {
	return fmt.Errorf("syntax error: missing '%s'", stop[:1])
}

// escape reads an escape character and what it escapes.
func (s *scanner) escape(stop string) (text string, quoted bool) {
	esc := s.next()
	c := s.peek()
	switch {
	case c == eof:
		if s.RawEscapes || s.Heredoc {
			return esc, true
		}
		return "", false
	case s.Heredoc && c != '$' && c != rune(s.Escape):
		return esc, true
	case s.RawEscapes && (stop == "" || !strings.ContainsRune(stop, c)):
		return esc + s.next(), true
	default:
		return s.next(), true
	}
}

func (s *scanner) singleQuotes() (string, error) {
	open := s.next()
	end := strings.IndexByte(s.in[s.pos:], '\'')
	if end < 0 {
		return "", errors.New("unexpected end of statement while looking for matching single-quote")
	}
	text := s.in[s.pos : s.pos+end]
	s.pos += end + 1
	if s.RawQuotes {
		return open + text + open, nil
	}
	return text, nil
}

func (s *scanner) doubleQuotes() (string, error) {
	var out strings.Builder
	quote := s.next()
	if s.RawQuotes {
		out.WriteString(quote)
	}
	for {
		switch c := s.peek(); c {
		case eof:
			return "", errors.New("unexpected end of statement while looking for matching double-quote")
		case '"':
			s.next()
			if s.RawQuotes {
				out.WriteString(quote)
			}
			return out.String(), nil
		case '$':
			text, err := s.dollar()
			if err == nil && out.Len()+len(text) > MaxLength {
				err = errTooLong
			}
			if err != nil {
				return "", err
			}
			out.WriteString(text)
		case rune(s.Escape):
			esc := s.next()
			after := s.peek()
			if after == eof {
				return "", errors.New("unexpected end of statement while looking for matching double-quote")
			}
			if s.RawEscapes || after != '"' && after != '$' && after != rune(s.Escape) {
				out.WriteString(esc)
			}
			out.WriteString(s.next())
		default:
			out.WriteString(s.next())
		}
	}
}

// addToField appends expanded text to the current field. Unquoted blanks end fields.
func (s *scanner) addToField(text string, quoted bool) {
	if quoted {
		s.inField = true
		s.field.WriteString(text)
		return
	}
	for _, r := range text {
		if unicode.IsSpace(r) {
			s.endField()
			continue
		}
		s.inField = true
		s.field.WriteRune(r)
	}
}

func (s *scanner) endField() {
	if s.inField {
		s.fields = append(s.fields, s.field.String())
		s.field.Reset()
		s.inField = false
	}
}
