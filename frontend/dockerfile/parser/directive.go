package parser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Names of parser directives.
const (
	DirectiveSyntax = "syntax"
	DirectiveEscape = "escape"
	DirectiveCheck  = "check"
)

// Directive is a comment at the top of the file that configures the parser.
type Directive struct {
	// Name is in lower case, Value without surrounding blanks.
	Name, Value string
	Range       Range
}

var (
	hashDirective  = regexp.MustCompile(`^#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*$`)
	slashDirective = regexp.MustCompile(`^//[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*$`)
)

// directives reads the parser directives and puts the reader back: they are comments as well.
func (p *parser) directives() error {
	scan := p.lines
	found, err := scanDirectives(&scan, hashDirective)
	if err != nil {
		return err
	}
	p.file.Directives = found
	if d, ok := p.file.Directive(DirectiveEscape); ok {
		if d.Value != `\` && d.Value != "`" {
			return errorAt(d.Range, fmt.Errorf("invalid escape token '%s' does not match ` or \\", d.Value))
		}
		p.file.Escape = d.Value[0]
	}
	return nil
}

// scanDirectives reads directives up to the first line that is none.
func scanDirectives(l *lines, form *regexp.Regexp) ([]Directive, error) {
	var out []Directive
	seen := map[string]bool{}
	for l.next() {
		m := form.FindSubmatch(l.line)
		if m == nil {
			break
		}
		name := strings.ToLower(string(m[1]))
		if name != DirectiveSyntax && name != DirectiveEscape && name != DirectiveCheck {
			break
		}
		rng := Range{Start: Position{Line: l.no}, End: Position{Line: l.no, Column: len(l.line)}}
		if seen[name] {
			return nil, errorAt(rng, fmt.Errorf("only one %s parser directive can be used", name))
		}
		seen[name] = true
		out = append(out, Directive{Name: name, Value: string(m[2]), Range: rng})
	}
	return out, nil
}

// DetectSyntax finds the image that a file asks to be built with. The file may be of any
// language: the directive is a comment of "#" or "//" at the top, after an optional "#!" line, or
// the key "syntax" of a JSON object. The range is empty for JSON.
func DetectSyntax(src []byte) (ref, cmdline string, location []Range, ok bool) {
	src = bytes.TrimPrefix(src, []byte(bom))
	first := lines{rest: src}
	if bytes.HasPrefix(src, []byte("#!")) {
		first.next()
	}
	for _, form := range []*regexp.Regexp{hashDirective, slashDirective} {
		l := first
		// A duplicate does not matter for a file that another frontend reads.
		found, _ := scanDirectives(&l, form)
		for _, d := range found {
			if d.Name == DirectiveSyntax {
				ref, _, _ = strings.Cut(d.Value, " ")
				return ref, d.Value, []Range{Line(d.Range.Start.Line)}, true
			}
		}
	}
	var object struct {
		Syntax string `json:"syntax"`
	}
	if json.NewDecoder(bytes.NewReader(src)).Decode(&object) == nil && object.Syntax != "" {
		ref, _, _ = strings.Cut(object.Syntax, " ")
		return ref, object.Syntax, nil, true
	}
	return "", "", nil, false
}
