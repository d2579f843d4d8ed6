package document

import (
	"regexp"
	"slices"
	"strings"
)

// licenses are the identifiers of https://spdx.org/licenses that most packages use. What names
// others is told as a comment: a document with an identifier that is none would not be valid.
var licenses = strings.Fields(`
	0BSD AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-1.0-Perl
	Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-4-Clause BSL-1.0 bzip2-1.0.6
	CC-BY-3.0 CC-BY-4.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 curl EPL-1.0 EPL-2.0 FSFAP FSFULLR FTL
	GFDL-1.3-or-later GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND
	ICU ISC LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only
	LGPL-3.0-or-later MIT MIT-0 MPL-1.1 MPL-2.0 NCSA OFL-1.1 OLDAP-2.8 OpenSSL PostgreSQL PSF-2.0
	Python-2.0 Python-2.0.1 Ruby TCL Unicode-3.0 Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 Zlib ZPL-2.1`)

// exceptions are those that may follow WITH.
var exceptions = []string{
	"Autoconf-exception-3.0", "Bison-exception-2.2", "Classpath-exception-2.0", "GCC-exception-3.1",
	"Linux-syscall-note", "LLVM-exception", "OpenSSL-exception",
}

var token = regexp.MustCompile(`\(|\)|[^\s()]+`)

// isExpression reports whether a license is an SPDX license expression of known identifiers, see
// annex D of the specification.
func isExpression(s string) bool {
	if len(s) > maxExpression {
		return false
	}
	e := expression{tokens: token.FindAllString(s, -1)}
	return e.sum(0) && len(e.tokens) == 0
}

// expression is what is left of one.
type expression struct {
	tokens []string
}

// maxExpression is how long an expression may be, in bytes.
const maxExpression = 1024

// maxNesting is how deep parentheses may be.
const maxNesting = 16

func (e *expression) next() string {
	if len(e.tokens) == 0 {
		return ""
	}
	t := e.tokens[0]
	e.tokens = e.tokens[1:]
	return t
}

// sum reads terms with operators between them. Their precedence makes no difference here.
func (e *expression) sum(depth int) bool {
	for {
		if !e.term(depth) {
			return false
		}
		if len(e.tokens) == 0 || e.tokens[0] != "AND" && e.tokens[0] != "OR" {
			return true
		}
		e.next()
	}
}

func (e *expression) term(depth int) bool {
	t := e.next()
	if t == "(" {
		return depth < maxNesting && e.sum(depth+1) && e.next() == ")"
	}
	if !slices.Contains(licenses, strings.TrimSuffix(t, "+")) {
		return false
	}
	if len(e.tokens) > 0 && e.tokens[0] == "WITH" {
		e.next()
		return slices.Contains(exceptions, e.next())
	}
	return true
}
