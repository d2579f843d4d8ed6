package shell_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/shell"
)

type env map[string]string

func (e env) Get(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

var vars = env{"SET": "value", "EMPTY": "", "P": "/usr/local/lib/file.tar.gz", "U": "äöü.x", "L": "a.b.c"}

func TestExpand(t *testing.T) {
	for word, want := range map[string]string{
		"plain": "plain", "$SET": "value", "${SET}": "value", "x$SET-y": "xvalue-y", "${SET}z": "valuez",
		"$NONE": "", "${NONE}": "", "$": "$", "a$": "a$", "$ a": "$ a", "$1": "", "${1}": "", "$12x": "x", "$@": "", "$$": "", "$%": "$%",
		"${NONE:-d}": "d", "${EMPTY:-d}": "d", "${EMPTY-d}": "", "${NONE-d}": "d", "${SET:-d}": "value",
		"${SET:+a}": "a", "${EMPTY:+a}": "", "${EMPTY+a}": "a", "${NONE+a}": "", "${SET:?err}": "value", "${EMPTY?err}": "",
		"${NONE:-${SET}}": "value", "${NONE:-$SET-$SET}": "value-value", `${NONE:-"q r"}`: "q r", `${NONE:-'$SET'}`: "$SET", `${NONE:-\}}`: "}",
		"${P#*/}": "usr/local/lib/file.tar.gz", "${P##*/}": "file.tar.gz", "${P%.*}": "/usr/local/lib/file.tar", "${P%%.*}": "/usr/local/lib/file",
		"${P#/usr/?ocal}": "/lib/file.tar.gz", "${P%gz}": "/usr/local/lib/file.tar.", "${P##*[.]}": "/usr/local/lib/file.tar.gz", "${P#x}": "/usr/local/lib/file.tar.gz",
		"${P/lib/LIB}": "/usr/local/LIB/file.tar.gz", "${P//l/L}": "/usr/LocaL/Lib/fiLe.tar.gz", `${P/\//_}`: "_usr/local/lib/file.tar.gz", `${P//\//_}`: "_usr_local_lib_file.tar.gz",
		"${P//[a-z]/}": "/usr/local/lib/file.tar.gz", "${SET//?/x}": "xxxxx", "${SET/al*/}": "v", "${SET//x/y}": "value", "${SET///y}": "value",
		"${U%.x}": "äöü", "${U#?}": "öü.x", "${L//./-}": "a-b-c", "${L%.?}": "a.b", "${NONE#x}": "", "${SET/$SET/$P}": "/usr/local/lib/file.tar.gz",
		"'$SET'": "$SET", `"$SET"`: "value", `\$SET`: "$SET", `"\$SET"`: "$SET", "'a b'": "a b", `a\ b`: "a b", `"a\"b"`: `a"b`, `"a\nb"`: `a\nb`, `a\nb`: "anb", `a\`: "a",
		`'it''s'`: "its", `"a'b"`: "a'b",
	} {
		got, err := shell.Lexer{}.Word(word, vars)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", word, got, err, want)
		}
	}
}

func TestExpandErrors(t *testing.T) {
	for word, want := range map[string]string{
		"${B":           "syntax error: missing '}'",
		"${}":           "syntax error: bad substitution",
		"${:-x}":        "syntax error: bad substitution",
		"${B^^}":        "unsupported modifier (^) in substitution",
		"${B:x}":        "unsupported modifier (:x) in substitution",
		"${B:-${C}":     "syntax error: missing '}'",
		"${B/}":         "syntax error: missing '/' in ${}",
		"${B/x}":        "syntax error: missing '/' in ${}",
		"${B:?}":        "B: is not allowed to be unset",
		"${EMPTY:?}":    "EMPTY: is not allowed to be empty",
		"${B?}":         "B: is not allowed to be unset",
		"${B:?a $SET}":  "B: a value",
		"'x":            "unexpected end of statement while looking for matching single-quote",
		`"x`:            "unexpected end of statement while looking for matching double-quote",
		`"x\`:           "unexpected end of statement while looking for matching double-quote",
		`${B:-"x}`:      "unexpected end of statement while looking for matching double-quote",
		nested(100, ""): "syntax error: substitutions are nested more than 64 levels deep",
	} {
		_, err := shell.Lexer{}.Word(word, vars)
		if err == nil || !strings.HasPrefix(err.Error(), "failed to process ") || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: got %v, want %s", word, err, want)
		}
	}
}

func nested(n int, inner string) string {
	return strings.Repeat("${B:-", n) + inner + strings.Repeat("}", n)
}

func TestModes(t *testing.T) {
	for _, tc := range []struct {
		name, word, want string
		lexer            shell.Lexer
	}{
		{"another escape character", "C:\\$SET `$SET", `C:\value $SET`, shell.Lexer{Escape: '`'}},
		{"quotes that stay", `"$SET" '$SET' "\""`, `"value" '$SET' """`, shell.Lexer{RawQuotes: true}},
		{"escapes that stay", `\$SET a\ b "\$"`, `\$SET a\ b "\$"`, shell.Lexer{RawEscapes: true, RawQuotes: true}},
		{"what is not set stays", `$NONE ${NONE:-x} ${NONE#y} $SET $$ ${NONE:?z}`, `$NONE ${NONE:-x} ${NONE#y} value $$ ${NONE:?z}`, shell.Lexer{SkipUnset: true}},
		{"a here-document", `"$SET" '${SET}' \$SET \\ \n it's`, `"value" 'value' $SET \ \n it's`, shell.Lexer{Heredoc: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.lexer.Word(tc.word, vars)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestFieldsAndNames(t *testing.T) {
	got, err := shell.Lexer{Split: true}.Expand(`a$SET "b c"d  ${LIST} '' $SET ${NONE:-$OTHER}`, env{"SET": "1", "LIST": " x  y "})
	if err != nil {
		t.Fatal(err)
	}
	want := shell.Result{
		Text:    "a1 b cd   x  y   1 ",
		Fields:  []string{"a1", "b cd", "x", "y", "", "1"},
		Matched: []string{"SET", "LIST"}, Unmatched: []string{"OTHER", "NONE"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestResultsAreBounded(t *testing.T) {
	const mega = 1 << 20
	e := env{"M": strings.Repeat("x", mega), "N": strings.Repeat("y", 65<<10)}
	for word, want := range map[string]string{
		strings.Repeat("$M", 16):                    "",
		strings.Repeat("$M", 17):                    "the result is longer than 16777216 bytes",
		`"` + strings.Repeat("$M", 17) + `"`:        "the result is longer than 16777216 bytes",
		"${NONE:-" + strings.Repeat("$M", 17) + "}": "the result is longer than 16777216 bytes",
		"${M//x/" + strings.Repeat("z", 17) + "}":   "the result is longer than 16777216 bytes",
		"${M/" + strings.Repeat("$M", 17) + "/}":    "the result is longer than 16777216 bytes",
		"${M#$N}":                                   "a pattern is longer than 65536 bytes",
		"${M/$N/}":                                  "a pattern is longer than 65536 bytes",
		"${M//x/zz}":                                "",
	} {
		_, err := shell.Lexer{}.Word(word, e)
		if err == nil && want == "" {
			continue
		}
		if err == nil || want == "" || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%.30s: got %v, want %s", word, err, want)
		}
	}
}

// FuzzExpand checks that no word makes the lexer panic and that modes for display keep what they
// do not understand.
func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"$a ${b:-c} ${d#e} ${f//g/h}", `"\"'$x'"`, "${a:-${b:+'c'}}", `\`, "${", "${a/\\//b}", "${a%%*?\\*}"} {
		f.Add(seed, "value", byte('\\'))
	}
	f.Fuzz(func(t *testing.T, word, value string, escape byte) {
		if escape == 0 {
			escape = '\\'
		}
		e := env{"a": value, "b": "", "x": word}
		for _, l := range []shell.Lexer{
			{Escape: escape, Split: true},
			{Escape: escape, Heredoc: true},
			{Escape: escape, RawQuotes: true, RawEscapes: true, SkipUnset: true},
		} {
			r, err := l.Expand(word, e)
			if err == nil && !strings.ContainsAny(word, "$\"'") && !strings.ContainsRune(word, rune(escape)) && r.Text != word {
				t.Fatalf("%q became %q", word, r.Text)
			}
		}
	})
}

// BenchmarkExpand shows that time is linear in the length of a word.
func BenchmarkExpand(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 16, 1 << 20} {
		word := strings.Repeat("$SET ${P##*/} text ", n/20)
		b.Run(sizeName(n), func(b *testing.B) {
			b.SetBytes(int64(len(word)))
			for b.Loop() {
				if _, err := (shell.Lexer{}).Word(word, vars); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return "1MiB"
	}
	return map[int]string{1 << 10: "1KiB", 1 << 16: "64KiB"}[n]
}
