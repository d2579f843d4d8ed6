package parser

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// blanks separate words. A line feed is among them only for text that was joined elsewhere.
const blanks = " \t\v\f\r\n"

var errNotStrings = errors.New("when using JSON array syntax, arrays must be comprised of strings only")

// newNode splits the text of an instruction into keyword, flags and arguments.
func newNode(text string, escape byte) (*Node, error) {
	keyword, rest := text, ""
	if i := strings.IndexAny(text, blanks); i >= 0 {
		keyword, rest = text[:i], strings.TrimSpace(text[i:])
	}
	n := &Node{Keyword: keyword, Name: strings.ToLower(keyword), Text: text}
	n.Flags, rest = cutFlags(rest)
	return n, n.parseArgs(rest, escape)
}

func (n *Node) parseArgs(rest string, escape byte) error {
	switch n.Name {
	case "env", "label":
		return n.parsePairs(rest, escape)
	case "arg":
		n.parseArgPairs(rest, escape)
	case "run", "cmd", "entrypoint", "shell":
		return n.parseCommand(rest)
	case "healthcheck":
		return n.parseHealthcheck(rest)
	case "add", "copy", "volume":
		return n.parseList(rest)
	case "onbuild":
		return n.parseTrigger(rest, escape)
	case "workdir", "user", "stopsignal", "maintainer":
		if rest != "" {
			n.Args = []string{rest}
		}
	default:
		n.Args = fields(rest)
	}
	return nil
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(blanks, r) })
}

// cutFlags takes the words that begin with "--" off the front of s. Quotes and escapes in them
// are resolved; the word "--" ends the flags.
func cutFlags(s string) (flags []string, rest string) {
	for {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
		if !strings.HasPrefix(s, "--") {
			return flags, s
		}
		word, n := cutFlag(s)
		s = s[n:]
		if word == "--" {
			return flags, strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		flags = append(flags, word)
	}
}

// cutFlag returns the first word of s, unquoted, and its length in s.
func cutFlag(s string) (word string, n int) {
	var b strings.Builder
	var quote rune
	for n < len(s) {
		r, size := utf8.DecodeRuneInString(s[n:])
		switch {
		case r == '\\' && n+size < len(s):
			n += size
			_, size = utf8.DecodeRuneInString(s[n:])
			b.WriteString(s[n : n+size])
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && unicode.IsSpace(r):
			return b.String(), n
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		default:
			b.WriteString(s[n : n+size])
		}
		n += size
	}
	return b.String(), n
}

// parseJSON parses s as an array of strings. It is not an array, and no error, if anything in s
// is not JSON.
func parseJSON(s string) (args []string, ok bool, err error) {
	if !strings.HasPrefix(s, "[") {
		return nil, false, nil
	}
	var array []any
	if json.Unmarshal([]byte(s), &array) != nil {
		return nil, false, nil //nolint:nilerr // it is not the JSON form then
	}
	args = make([]string, 0, len(array))
	for _, v := range array {
		str, isString := v.(string)
		if !isString {
			return nil, false, errNotStrings
		}
		args = append(args, str)
	}
	return args, true, nil
}

// parseCommand parses a JSON array, or else one string.
func (n *Node) parseCommand(rest string) error {
	args, ok, err := parseJSON(rest)
	if err != nil {
		return err
	}
	switch {
	case ok:
		n.Args, n.JSON = args, true
	case rest != "":
		n.Args = []string{rest}
	}
	return nil
}

// parseList parses a JSON array, or else words.
func (n *Node) parseList(rest string) error {
	args, ok, err := parseJSON(rest)
	if err != nil {
		return err
	}
	n.Args, n.JSON = args, ok
	if !ok {
		n.Args = fields(rest)
	}
	return nil
}

// parseHealthcheck parses a type and a command after it.
func (n *Node) parseHealthcheck(rest string) error {
	kind, command := rest, ""
	if i := strings.IndexAny(rest, blanks); i >= 0 {
		kind, command = rest[:i], strings.TrimSpace(rest[i:])
	}
	if kind == "" {
		return nil
	}
	if err := n.parseCommand(command); err != nil {
		return err
	}
	n.Args = append([]string{kind}, n.Args...)
	return nil
}

func (n *Node) parseTrigger(rest string, escape byte) error {
	if rest == "" {
		return nil
	}
	n.Args = []string{rest}
	sub, err := newTrigger(rest, escape)
	n.Sub = sub
	return err
}

// newTrigger is newNode for what is registered. A trigger that registers another one is refused, so
// that one is not looked at, nor what it registers in turn.
func newTrigger(text string, escape byte) (*Node, error) {
	keyword := text
	if i := strings.IndexAny(text, blanks); i >= 0 {
		keyword = text[:i]
	}
	if strings.EqualFold(keyword, "onbuild") {
		return &Node{Keyword: keyword, Name: "onbuild", Text: text}, nil
	}
	return newNode(text, escape)
}

// parsePairs parses "key=value ..." or the older form "key value".
func (n *Node) parsePairs(rest string, escape byte) error {
	words, _ := splitWords(rest, escape)
	if len(words) == 0 {
		return nil
	}
	if !strings.Contains(words[0], "=") {
		i := strings.IndexAny(rest, blanks)
		if i < 0 {
			return fmt.Errorf("%s must have two arguments", strings.ToUpper(n.Name))
		}
		n.Pairs = []Pair{{Key: rest[:i], Value: strings.TrimSpace(rest[i:]), HasValue: true, Legacy: true}}
		return nil
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("Syntax error - can't find = in %q. Must be of the form: name=value", word) //nolint:staticcheck // users and clients know this text
		}
		n.Pairs = append(n.Pairs, Pair{Key: key, Value: value, HasValue: true})
	}
	return nil
}

func (n *Node) parseArgPairs(rest string, escape byte) {
	words, _ := splitWords(rest, escape)
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		n.Pairs = append(n.Pairs, Pair{Key: key, Value: value, HasValue: ok})
	}
}

// splitWords splits s at blanks that are neither quoted nor escaped. Quotes and escapes stay in
// the words. It is not closed if a quote is open at the end; the last word then runs to the end.
func splitWords(s string, escape byte) (words []string, closed bool) {
	var quote byte
	start := -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		if start < 0 {
			if strings.IndexByte(blanks, c) >= 0 {
				continue
			}
			start = i
		}
		switch {
		case c == escape && quote != '\'':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case strings.IndexByte(blanks, c) >= 0:
			words = append(words, s[start:i])
			start = -1
		}
	}
	if start >= 0 {
		words = append(words, s[start:])
	}
	return words, quote == 0
}
