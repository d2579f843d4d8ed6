// Package lint holds the rules that Dockerfiles are checked against, their configuration, and
// the collector of what was found.
//
// The packages that know when a rule is broken (instruction shapes, stages, expansion) report to
// a Linter; the frontend sends its warnings to the client when the build definition is known.
// The package does no I/O.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Rule is one rule.
type Rule struct {
	Name        string
	Description string
	// URL explains the rule; empty for rules about something else than the file.
	URL string
	// Experimental rules are checked only if asked for.
	Experimental bool
}

// Warning is a broken rule.
type Warning struct {
	Rule     *Rule
	Message  string
	Location []parser.Range
}

// Line returns the first line of the warning, 0 if it has none.
func (w Warning) Line() int {
	if len(w.Location) == 0 {
		return 0
	}
	return w.Location[0].Start.Line
}

// String returns the warning in one line.
func (w Warning) String() string {
	s := w.Rule.Name + ": " + w.Message
	if n := w.Line(); n > 0 {
		s += fmt.Sprintf(" (line %d)", n)
	}
	return s
}

// Config says which rules count. The zero Config is the default: all but experimental ones.
type Config struct {
	// All skips, or checks of the experimental rules, every one; else those that are named.
	SkipAll, ExperimentalAll bool
	Skip, Experimental       []string
	// Error turns warnings into an error.
	Error bool
}

// ParseConfig parses "skip=A,B;error=true;experimental=all".
func ParseConfig(s string) (Config, error) {
	var c Config
	for part := range strings.SplitSeq(s, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return Config{}, fmt.Errorf("invalid check option %q", part)
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "skip":
			c.SkipAll, c.Skip = parseNames(value)
		case "experimental":
			c.ExperimentalAll, c.Experimental = parseNames(value)
		case "error":
			v, err := strconv.ParseBool(value)
			if err != nil {
				return Config{}, fmt.Errorf("failed to parse check option %q: %w", key, err)
			}
			c.Error = v
		default:
			return Config{}, fmt.Errorf("invalid check option %q", key)
		}
	}
	return c, nil
}

func parseNames(s string) (all bool, names []string) {
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		switch {
		case strings.EqualFold(name, "all"):
			all = true
		case name != "":
			names = append(names, name)
		}
	}
	return all, names
}

func (c Config) skips(r *Rule) bool {
	if r.Experimental {
		return !c.ExperimentalAll && !named(c.Experimental, r)
	}
	return c.SkipAll || named(c.Skip, r)
}

func named(names []string, r *Rule) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, r.Name) })
}

// maxWarnings is how many warnings are kept: nobody reads more, and a file can have one for every
// few bytes.
const maxWarnings = 1000

// Linter collects warnings, of very many the first ones. It is not for concurrent use; the nil Linter ignores reports.
type Linter struct {
	config   Config
	skipped  map[*Rule]bool
	warnings []Warning
}

// New returns a Linter.
func New(c Config) *Linter { return &Linter{config: c, skipped: map[*Rule]bool{}} }

// skips remembers what the configuration says of a rule.
func (l *Linter) skips(r *Rule) bool {
	skip, known := l.skipped[r]
	if !known {
		skip = l.config.skips(r)
		l.skipped[r] = skip
	}
	return skip
}

// Wants tells whether Report would keep a warning: messages that take time to make are made only
// then.
func (l *Linter) Wants(r *Rule, node *parser.Node) bool {
	return l != nil && !l.skips(r) && len(l.warnings) < maxWarnings && !skippedBy(node, r)
}

// Report notes that node breaks a rule, unless the configuration or a comment above node says
// that it does not count there.
func (l *Linter) Report(r *Rule, node *parser.Node, format string, args ...any) {
	if !l.Wants(r, node) {
		return
	}
	l.ReportAt(r, node.Location(), format, args...)
}

// ReportAt notes that a place breaks a rule.
func (l *Linter) ReportAt(r *Rule, location []parser.Range, format string, args ...any) {
	if l == nil || l.skips(r) || len(l.warnings) >= maxWarnings {
		return
	}
	l.warnings = append(l.warnings, Warning{Rule: r, Message: fmt.Sprintf(format, args...), Location: location})
}

// skippedBy tells whether a comment "check=skip=..." above node names the rule.
func skippedBy(node *parser.Node, r *Rule) bool {
	for _, comment := range node.Comments {
		value, ok := strings.CutPrefix(comment, "check=")
		if !ok {
			continue
		}
		// A comment that is no configuration is just a comment.
		if c, err := ParseConfig(value); err == nil && (c.SkipAll || named(c.Skip, r)) {
			return true
		}
	}
	return false
}

// Warnings returns what was reported, by line.
func (l *Linter) Warnings() []Warning {
	if l == nil {
		return nil
	}
	out := slices.Clone(l.warnings)
	slices.SortStableFunc(out, func(a, b Warning) int { return cmp.Compare(a.Line(), b.Line()) })
	return out
}

// Err returns an error that names the broken rules, if the configuration asks for one.
func (l *Linter) Err() error {
	if l == nil || !l.config.Error || len(l.warnings) == 0 {
		return nil
	}
	var names []string
	for _, w := range l.warnings {
		names = append(names, w.Rule.Name)
	}
	slices.Sort(names)
	return errors.New("lint violation found for rules: " + strings.Join(slices.Compact(names), ", "))
}
