package parser

import (
	"errors"
	"strings"
)

var errUnterminatedHeredoc = errors.New("unterminated heredoc")

// Heredoc is a here-document.
type Heredoc struct {
	// Word is the redirection as written, Name the word that ends the body, unquoted.
	Word, Name string
	// FileDescriptor is the number before the redirection, as text; often empty.
	FileDescriptor string
	// Expand tells that variables in the body are expanded: the name has no quotes.
	Expand bool
	// Chomp tells that leading tabs are removed from the lines of the body.
	Chomp bool
	// Raw is the body as written, each line with its end.
	Raw string
}

// Body returns the body, without leading tabs if the redirection asks for it.
func (h Heredoc) Body() string {
	if !h.Chomp {
		return h.Raw
	}
	var b strings.Builder
	for line := range strings.SplitAfterSeq(h.Raw, "\n") {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}

// ParseHeredoc parses a word as the redirection of a here-document: an optional number, "<<", an
// optional dash, and a name that may be quoted.
func ParseHeredoc(word string) (Heredoc, bool) {
	fd := word[:len(word)-len(strings.TrimLeft(word, "0123456789"))]
	rest, ok := strings.CutPrefix(word[len(fd):], "<<")
	if !ok {
		return Heredoc{}, false
	}
	rest, chomp := strings.CutPrefix(rest, "-")
	if rest == "" || strings.Contains(rest, "<") {
		return Heredoc{}, false
	}
	name, ok := unquote(rest)
	if !ok || name == "" || strings.Contains(name, "\n") {
		return Heredoc{}, false
	}
	return Heredoc{Word: word, Name: name, FileDescriptor: fd, Expand: name == rest, Chomp: chomp}, true
}

// unquote removes quotes and backslashes the way a shell does with a delimiter.
func unquote(s string) (string, bool) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), quote == 0
}

// heredocs finds the here-documents that node names and reads their bodies.
func (p *parser) heredocs(node *Node) error {
	target := node
	if node.Name == "onbuild" && node.Sub != nil {
		target = node.Sub
	}
	if target.JSON || target.Name != "run" && target.Name != "copy" && target.Name != "add" {
		return nil
	}
	if !strings.Contains(target.Text, "<<") {
		return nil
	}
	words, closed := splitWords(target.Text, p.file.Escape)
	if !closed {
		return nil
	}
	for _, word := range words {
		h, ok := ParseHeredoc(word)
		if !ok {
			continue
		}
		raw, ok := p.heredocBody(h)
		if !ok {
			return errUnterminatedHeredoc
		}
		h.Raw = raw
		target.Heredocs = append(target.Heredocs, h)
	}
	return nil
}

// heredocBody reads lines up to the one that ends h.
func (p *parser) heredocBody(h Heredoc) (string, bool) {
	var b strings.Builder
	for p.lines.next() {
		line := string(p.lines.line)
		if h.Chomp {
			line = strings.TrimLeft(line, "\t")
		}
		if line == h.Name {
			return b.String(), true
		}
		b.Write(p.lines.raw)
	}
	return "", false
}
