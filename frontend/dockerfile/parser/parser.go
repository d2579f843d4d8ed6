// Package parser turns the text of a Dockerfile into nodes: one per instruction, with flags,
// arguments, here-documents and positions.
//
// It knows the lexical rules (directives, comments, continuation lines, here-documents) and which
// shape the arguments of each instruction have (one string, words, key-value pairs, a JSON array).
// It does not know what instructions mean, how many arguments they need or which flags exist:
// that is package instruction. It does no I/O and expands no variables.
//
// Time and memory are linear in the size of the input. Errors are of type *Error and carry the
// lines they speak of.
package parser

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxLine is the length in bytes of the longest line that is accepted.
	MaxLine = 64<<10 - 1
	// MaxSize is the size in bytes of the largest file that is accepted.
	MaxSize = 16 << 20
	// MaxInstructions is how many instructions a file may have: each takes a thousand bytes or so
	// until the build is done. A file of 1 MiB cannot reach it.
	MaxInstructions = 300_000
)

// ErrEmpty is the error for a file without a byte.
var ErrEmpty = errors.New("the Dockerfile cannot be empty")

const bom = "\xef\xbb\xbf"

// File is a parsed Dockerfile.
type File struct {
	// Escape is the escape character, a backslash unless a directive says otherwise.
	Escape byte
	// Directives are the parser directives in the order of the file.
	Directives []Directive
	// Nodes are the instructions in the order of the file, never none.
	Nodes []*Node
	// EmptyContinuations are the last lines of the instructions that have an empty line among
	// their continuation lines.
	EmptyContinuations []Range
}

// Directive returns the value of a parser directive.
func (f *File) Directive(name string) (Directive, bool) {
	for _, d := range f.Directives {
		if d.Name == name {
			return d, true
		}
	}
	return Directive{}, false
}

// Node is one instruction.
type Node struct {
	// Keyword is the name of the instruction as written, Name in lower case.
	Keyword, Name string
	// Text is the instruction with its continuation lines joined and comments removed, without
	// the bodies of here-documents.
	Text string
	// Flags are the leading words that begin with two dashes, unquoted.
	Flags []string
	// Args are the arguments in the shape that the instruction asks for.
	Args []string
	// JSON tells that Args were written as a JSON array.
	JSON bool
	// Pairs are the arguments of ENV, LABEL and ARG.
	Pairs []Pair
	// Heredocs are the here-documents in the order in which they are named.
	Heredocs []Heredoc
	// Sub is the instruction that ONBUILD registers; nil without arguments.
	Sub *Node
	// Comments are the comment lines directly above, without the sign and surrounding blanks.
	Comments []string
	// Range covers all lines of the instruction, here-documents included.
	Range Range
}

// Source returns the instruction with the bodies of its here-documents, as text that parses to
// the same node.
func (n *Node) Source() string {
	if len(n.Heredocs) == 0 {
		return n.Text
	}
	var b strings.Builder
	b.WriteString(n.Text)
	b.WriteByte('\n')
	for _, h := range n.Heredocs {
		b.WriteString(h.Raw)
		b.WriteString(h.Name)
		b.WriteByte('\n')
	}
	return b.String()
}

// Location returns the lines of the instruction.
func (n *Node) Location() []Range { return n.Range.Lines() }

// Pair is one argument of ENV, LABEL or ARG.
type Pair struct {
	Key, Value string
	// HasValue is false for an ARG without a default.
	HasValue bool
	// Legacy tells that key and value were separated by a blank.
	Legacy bool
}

// Parse parses a Dockerfile.
func Parse(src []byte) (*File, error) {
	switch {
	case len(src) == 0:
		return nil, ErrEmpty
	case len(src) > MaxSize:
		return nil, fmt.Errorf("the Dockerfile has %d bytes, more than the allowed %d", len(src), MaxSize)
	}
	p := &parser{lines: lines{rest: bytes.TrimPrefix(src, []byte(bom))}, file: &File{Escape: '\\'}}
	if err := p.directives(); err != nil {
		return nil, err
	}
	if err := p.instructions(); err != nil {
		return nil, err
	}
	if len(p.file.Nodes) == 0 {
		return nil, errorAt(Line(p.lines.no), errors.New("file with no instructions"))
	}
	return p.file, nil
}

// ParseInstruction parses one instruction that stands alone, such as a trigger kept in an image.
func ParseInstruction(src string, escape byte) (*Node, error) {
	if len(src) > MaxSize {
		return nil, fmt.Errorf("instruction has %d bytes, more than the allowed %d", len(src), MaxSize)
	}
	p := &parser{lines: lines{rest: []byte(src)}, file: &File{Escape: escape}}
	if err := p.instructions(); err != nil {
		return nil, err
	}
	if len(p.file.Nodes) != 1 {
		return nil, fmt.Errorf("expected one instruction, found %d", len(p.file.Nodes))
	}
	return p.file.Nodes[0], nil
}

type parser struct {
	lines lines
	file  *File
}

func (p *parser) instructions() error {
	var comments []string
	for p.lines.next() {
		line := strings.TrimLeft(string(p.lines.line), blanks)
		switch {
		case line == "":
			comments = nil
		case line[0] == '#':
			comments = append(comments, strings.TrimSpace(line[1:]))
		default:
			node, err := p.instruction(line)
			if err != nil {
				return err
			}
			if node != nil {
				if len(p.file.Nodes) == MaxInstructions {
					return errorAt(node.Range, fmt.Errorf("the Dockerfile has more than the allowed %d instructions", MaxInstructions))
				}
				node.Comments = comments
				p.file.Nodes = append(p.file.Nodes, node)
			}
			comments = nil
		}
	}
	return p.lines.err
}

// instruction reads the rest of the instruction that begins with first, the current line without
// leading blanks. It returns nil if nothing but continuation characters is left of it.
func (p *parser) instruction(first string) (*Node, error) {
	start := Position{Line: p.lines.no, Column: len(p.lines.line) - len(first)}
	text := strings.TrimSpace(p.join(first))
	if p.lines.err != nil {
		return nil, p.lines.err
	}
	if text == "" {
		return nil, nil
	}
	node, err := newNode(text, p.file.Escape)
	if err == nil {
		err = p.heredocs(node)
	}
	rng := Range{Start: start, End: Position{Line: p.lines.no, Column: len(p.lines.line)}}
	if err != nil {
		if p.lines.err != nil {
			return nil, p.lines.err
		}
		return nil, errorAt(rng, err)
	}
	for n := node; n != nil; n = n.Sub {
		n.Range = rng
	}
	return node, nil
}

// join returns the line first and the lines that continue it.
func (p *parser) join(first string) string {
	line, more := p.cutContinuation(first)
	if !more {
		return line
	}
	var (
		b     strings.Builder
		empty bool
	)
	b.WriteString(line)
	for more && p.lines.next() {
		line := string(p.lines.line)
		switch trimmed := strings.TrimLeft(line, blanks); {
		case trimmed == "":
			empty = true
		case trimmed[0] == '#':
		default:
			line, more = p.cutContinuation(line)
			b.WriteString(line)
		}
	}
	if empty {
		p.file.EmptyContinuations = append(p.file.EmptyContinuations, Line(p.lines.no))
	}
	return b.String()
}

// cutContinuation removes the escape character at the end of a line that is continued. A doubled
// escape character does not continue the line.
func (p *parser) cutContinuation(line string) (string, bool) {
	t := strings.TrimRight(line, " \t")
	n := len(t)
	if n == 0 || t[n-1] != p.file.Escape || n > 1 && t[n-2] == p.file.Escape {
		return line, false
	}
	return t[:n-1], true
}

// lines splits the source at line ends.
type lines struct {
	rest []byte
	// line is the current line without its end, raw with it; no counts from 1.
	line, raw []byte
	no        int
	err       error
}

func (l *lines) next() bool {
	if l.err != nil || len(l.rest) == 0 {
		return false
	}
	n := bytes.IndexByte(l.rest, '\n') + 1
	if n == 0 {
		n = len(l.rest)
	}
	l.raw, l.rest = l.rest[:n], l.rest[n:]
	l.line = bytes.TrimSuffix(bytes.TrimSuffix(l.raw, []byte("\n")), []byte("\r"))
	l.no++
	if len(l.line) > MaxLine {
		l.err = errorAt(Line(l.no), fmt.Errorf("dockerfile line greater than max allowed size of %d", MaxLine))
		return false
	}
	return true
}
