package shell

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// globExpr translates a pattern of "*", "?" and escaped characters to a regular expression.
func globExpr(pattern string, greedy bool) string {
	var b strings.Builder
	b.WriteString("(?s)")
	for i := 0; i < len(pattern); {
		r, size := utf8.DecodeRuneInString(pattern[i:])
		switch {
		case r == '*':
			b.WriteString(".*")
			if !greedy {
				b.WriteByte('?')
			}
		case r == '?':
			b.WriteByte('.')
		case r == '\\' && i+1 < len(pattern):
			i++
			_, size = utf8.DecodeRuneInString(pattern[i:])
			fallthrough
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+size]))
		}
		i += size
	}
	return b.String()
}

// compile returns nil for a pattern that no regular expression can be made of, which is one that
// is not UTF-8; it matches nothing.
func compile(expr string) *regexp.Regexp {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil
	}
	return re
}

func trimPrefix(value, pattern string, longest bool) string {
	re := compile("^(?:" + globExpr(pattern, longest) + ")")
	if re == nil {
		return value
	}
	if loc := re.FindStringIndex(value); loc != nil {
		return value[loc[1]:]
	}
	return value
}

// trimSuffix matches the reversed pattern at the start of the reversed value.
func trimSuffix(value, pattern string, longest bool) string {
	if !utf8.ValidString(value) {
		return value
	}
	re := compile("^(?:" + globExpr(reversePattern(pattern), longest) + ")")
	if re == nil {
		return value
	}
	if loc := re.FindStringIndex(reverse(value)); loc != nil {
		return value[:len(value)-loc[1]]
	}
	return value
}

func replace(value, pattern, with string, all bool) (string, error) {
	if pattern == "" {
		return value, nil
	}
	re := compile(globExpr(pattern, true))
	if re == nil {
		return value, nil
	}
	if all {
		return replaceAll(re, value, with)
	}
	if loc := re.FindStringIndex(value); loc != nil {
		return value[:loc[0]] + with + value[loc[1]:], nil
	}
	return value, nil
}

// replaceAll gives up when the result gets too long, before it is made.
func replaceAll(re *regexp.Regexp, value, with string) (string, error) {
	length := len(value)
	out := re.ReplaceAllStringFunc(value, func(match string) string {
		if length += len(with) - len(match); length > MaxLength {
			return ""
		}
		return with
	})
	if length > MaxLength {
		return "", errTooLong
	}
	return out, nil
}

func reverse(s string) string {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

// reversePattern reverses a pattern and keeps escapes before what they escape.
func reversePattern(pattern string) string {
	var units []string
	for i := 0; i < len(pattern); {
		start := i
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
		}
		_, size := utf8.DecodeRuneInString(pattern[i:])
		i += size
		units = append(units, pattern[start:i])
	}
	var b strings.Builder
	for i := len(units) - 1; i >= 0; i-- {
		b.WriteString(units[i])
	}
	return b.String()
}
