package parser_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// node is what tests compare.
type node struct {
	Name, Text string
	Flags      []string
	Args       []string
	JSON       bool
	Pairs      []parser.Pair
	Comments   []string
	First      int
	Last       int
}

func nodes(f *parser.File) []node {
	var out []node
	for _, n := range f.Nodes {
		out = append(out, node{n.Name, n.Text, n.Flags, n.Args, n.JSON, n.Pairs, n.Comments, n.Range.Start.Line, n.Range.End.Line})
	}
	return out
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []node
	}{
		{
			"lines are joined and comments among them dropped", "RUN a \\\n  # no\n\n  b \\  \n c\n",
			[]node{{Name: "run", Text: "RUN a   b  c", Args: []string{"a   b  c"}, First: 1, Last: 5}},
		},
		{
			"a doubled escape character does not continue a line", "RUN a \\\\\nRUN b",
			[]node{
				{Name: "run", Text: `RUN a \\`, Args: []string{`a \\`}, First: 1, Last: 1},
				{Name: "run", Text: "RUN b", Args: []string{"b"}, First: 2, Last: 2},
			},
		},
		{
			"leading blanks of an instruction are ignored, those of the rest are not", "\t RUN a\\\n\tb",
			[]node{{Name: "run", Text: "RUN a\tb", Args: []string{"a\tb"}, First: 1, Last: 2}},
		},
		{
			"comments directly above belong to an instruction", "# one\n# two\nFROM a\n# not\n\nUSER b",
			[]node{
				{Name: "from", Text: "FROM a", Args: []string{"a"}, Comments: []string{"one", "two"}, First: 3, Last: 3},
				{Name: "user", Text: "USER b", Args: []string{"b"}, First: 6, Last: 6},
			},
		},
		{
			"flags end at the first other word or at two dashes", "COPY --a=1 --b --  --c d",
			[]node{{Name: "copy", Text: "COPY --a=1 --b --  --c d", Flags: []string{"--a=1", "--b"}, Args: []string{"--c", "d"}, First: 1, Last: 1}},
		},
		{
			"quotes and escapes in flags are resolved", `RUN --m='a b'"c" --n=\  x`,
			[]node{{Name: "run", Text: `RUN --m='a b'"c" --n=\  x`, Flags: []string{"--m=a bc", "--n= "}, Args: []string{"x"}, First: 1, Last: 1}},
		},
		{
			"JSON arrays are taken apart", `CMD [ "a" , "b c" ]`,
			[]node{{Name: "cmd", Text: `CMD [ "a" , "b c" ]`, Args: []string{"a", "b c"}, JSON: true, First: 1, Last: 1}},
		},
		{
			"text after a JSON array makes it a string", `CMD ["a"] b`,
			[]node{{Name: "cmd", Text: `CMD ["a"] b`, Args: []string{`["a"] b`}, First: 1, Last: 1}},
		},
		{
			"words of COPY know no quotes", `COPY "a b" c`,
			[]node{{Name: "copy", Text: `COPY "a b" c`, Args: []string{`"a`, `b"`, "c"}, First: 1, Last: 1}},
		},
		{
			"pairs may be quoted and keep their quotes", `ENV a="b c" d=e\ f 'g h'=i`,
			[]node{{Name: "env", Text: `ENV a="b c" d=e\ f 'g h'=i`, Pairs: []parser.Pair{
				{Key: "a", Value: `"b c"`, HasValue: true}, {Key: "d", Value: `e\ f`, HasValue: true}, {Key: "'g h'", Value: "i", HasValue: true},
			}, First: 1, Last: 1}},
		},
		{
			"the older form of pairs takes the rest of the line", "LABEL a  b  c=d",
			[]node{{Name: "label", Text: "LABEL a  b  c=d", Pairs: []parser.Pair{{Key: "a", Value: "b  c=d", HasValue: true, Legacy: true}}, First: 1, Last: 1}},
		},
		{
			"arguments may have a default or not", "ARG a b= c=d",
			[]node{{Name: "arg", Text: "ARG a b= c=d", Pairs: []parser.Pair{{Key: "a"}, {Key: "b", HasValue: true}, {Key: "c", Value: "d", HasValue: true}}, First: 1, Last: 1}},
		},
		{
			"line ends of Windows and a byte order mark are no text", "\xef\xbb\xbfUSER a\r\nRUN b \\\r\n c\r\n",
			[]node{
				{Name: "user", Text: "USER a", Args: []string{"a"}, First: 1, Last: 1},
				{Name: "run", Text: "RUN b  c", Args: []string{"b  c"}, First: 2, Last: 3},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := parser.Parse([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, nodes(f), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseHeredocs(t *testing.T) {
	text := "RUN cat <<A 3<<-'B C'\n one\nA\n\t\ttwo\n\tB C\nCOPY [\"<<X\", \"y\"]\nRUN echo '<<Y' <<<z\nONBUILD RUN <<Z\nthree\nZ\n"
	f, err := parser.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []parser.Heredoc{
		{Word: "<<A", Name: "A", Expand: true, Raw: " one\n"},
		{Word: "3<<-'B C'", Name: "B C", FileDescriptor: "3", Chomp: true, Raw: "\t\ttwo\n"},
	}
	if diff := cmp.Diff(want, f.Nodes[0].Heredocs); diff != "" {
		t.Error(diff)
	}
	if got := f.Nodes[0].Heredocs[1].Body(); got != "two\n" {
		t.Errorf("body without tabs: %q", got)
	}
	if n := f.Nodes[0].Range; n.Start.Line != 1 || n.End.Line != 5 {
		t.Errorf("range with bodies: %v", n)
	}
	for _, n := range f.Nodes[1:3] {
		if len(n.Heredocs) != 0 {
			t.Errorf("%s: unexpected here-documents %v", n.Text, n.Heredocs)
		}
	}
	if got := f.Nodes[3].Sub.Source(); got != "RUN <<Z\nthree\nZ\n" {
		t.Errorf("source of trigger: %q", got)
	}
}

func TestParseErrors(t *testing.T) {
	long := strings.Repeat("x", parser.MaxLine)
	for _, tc := range []struct {
		name, text, want string
		lines            []int
	}{
		{"an empty file", "", "the Dockerfile cannot be empty", nil},
		{"only comments", "# a\n# b\n", "file with no instructions", []int{2}},
		{"a directive twice", "# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used", []int{2}},
		{"an unknown escape character", "# escape=!\nFROM a", "invalid escape token '!' does not match ` or \\", []int{1}},
		{"a here-document without end", "FROM a\nRUN <<E\nx\n", "unterminated heredoc", []int{2, 3}},
		{"numbers in an array", "CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only", []int{1}},
		{"a pair without value", "ENV a", "ENV must have two arguments", []int{1}},
		{"a word among pairs", "ENV a=b c", `Syntax error - can't find = in "c". Must be of the form: name=value`, []int{1}},
		{"a line that is too long", "FROM a\n" + long + "x\n", "dockerfile line greater than max allowed size of 65535", []int{2}},
		{"triggers of triggers, which are refused later", "FROM a\n" + strings.Repeat("ONBUILD \\\n", 1<<20) + "CMD [1]\n" + strings.Repeat("CMD [1]\n", 1), "when using JSON array syntax, arrays must be comprised of strings only", []int{1<<20 + 3}},
		{"very many instructions", strings.Repeat("CMD\n", parser.MaxInstructions+1), "the Dockerfile has more than the allowed 300000 instructions", []int{300001}},
		{"a very large file", "FROM a\n" + strings.Repeat("\n", parser.MaxSize), "the Dockerfile has 16777223 bytes, more than the allowed 16777216", nil},
		{"a long line in a here-document", "RUN <<E\n" + long + "x\nE", "dockerfile line greater than max allowed size of 65535", []int{2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parser.Parse([]byte(tc.text))
			if err == nil || err.Error() != tc.want {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
			var lines []int
			var e *parser.Error
			if errors.As(err, &e) {
				for _, r := range e.Location {
					lines = append(lines, r.Start.Line)
				}
			}
			if diff := cmp.Diff(tc.lines, lines); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := parser.Parse([]byte("RUN " + long[:parser.MaxLine-4])); err != nil {
		t.Errorf("the longest line: %v", err)
	}
}

func TestErrorsHaveColumns(t *testing.T) {
	_, err := parser.Parse([]byte("FROM a\n  CMD [1]"))
	var e *parser.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	want := []parser.Range{{Start: parser.Position{Line: 2, Column: 2}, End: parser.Position{Line: 2, Column: 9}}}
	if diff := cmp.Diff(want, e.Location); diff != "" {
		t.Error(diff)
	}
}

func TestDetectSyntax(t *testing.T) {
	for _, tc := range []struct {
		name, text, ref, cmdline string
		line                     int
	}{
		{"a comment", "# syntax=a:1\nFROM x", "a:1", "a:1", 1},
		{"with arguments", "#syntax = a:1 b c \n", "a:1", "a:1 b c", 1},
		{"another kind of comment", "// syntax=a\n", "a", "a", 1},
		{"after an interpreter line", "#!/usr/bin/env x\n# syntax=a\n", "a", "a", 2},
		{"after another directive", "# check=skip=all\n# syntax=a\n", "a", "a", 2},
		{"JSON", `{"syntax": "a b"}`, "a", "a b", 0},
		{"a byte order mark", "\xef\xbb\xbf# syntax=a\n", "a", "a", 1},
		{"not after a comment", "# x\n# syntax=a\n", "", "", 0},
		{"not after an empty line", "\n# syntax=a\n", "", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ref, cmdline, location, ok := parser.DetectSyntax([]byte(tc.text))
			if ref != tc.ref || cmdline != tc.cmdline || ok != (tc.ref != "") {
				t.Errorf("got %q %q %v", ref, cmdline, ok)
			}
			if tc.line > 0 && (len(location) != 1 || location[0].Start.Line != tc.line) {
				t.Errorf("location %v", location)
			}
		})
	}
}

// FuzzParse checks that whatever parses has positions in order and texts that parse again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"FROM a AS b\nRUN x \\\n # c\n y\n", "# escape=`\nRUN a`\nb", "COPY <<A <<-\"B\" /\nx\nA\n\ty\n\tB\n",
		"ENV a=\"b c\" d='e", "ONBUILD RUN <<E\nx\nE\n", "CMD [\"a\", 1]", "HEALTHCHECK --x=\"y CMD z", "\xef\xbb\xbf\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		parser.DetectSyntax(src)
		file, err := parser.Parse(src)
		if err != nil {
			return
		}
		last := 0
		for _, n := range file.Nodes {
			if n.Range.Start.Line <= last || n.Range.End.Line < n.Range.Start.Line {
				t.Fatalf("%q: range %v after line %d", n.Text, n.Range, last)
			}
			last = n.Range.End.Line
			if n.Sub != nil || len(n.Heredocs) > 0 || strings.ContainsAny(n.Text, "\\`") {
				continue
			}
			again, err := parser.ParseInstruction(n.Source(), file.Escape)
			if err != nil {
				if strings.Contains(err.Error(), "expected one instruction") || strings.Contains(err.Error(), "greater than max") {
					continue
				}
				t.Fatalf("%q does not parse again: %v", n.Source(), err)
			}
			if again.Name != n.Name || !cmp.Equal(again.Args, n.Args) {
				t.Fatalf("%q: %v became %v", n.Text, n.Args, again.Args)
			}
		}
	})
}
