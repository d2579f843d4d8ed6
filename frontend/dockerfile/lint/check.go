package lint

import (
	"regexp"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// CheckFile reports what is wrong with the form of a file, whether a stage is built or not.
func (l *Linter) CheckFile(f *parser.File, d *instruction.Dockerfile) {
	if l == nil {
		return
	}
	for _, r := range f.EmptyContinuations {
		l.ReportAt(NoEmptyContinuation, []parser.Range{r}, "Empty continuation line")
	}
	l.checkCasing(f.Nodes)
	for _, arg := range d.Args {
		l.checkArgDescription(arg)
	}
	names := map[string]bool{}
	for _, s := range d.Stages {
		l.checkStageName(s, names)
		for _, inst := range s.Instructions {
			l.checkForm(inst)
		}
	}
}

func (l *Linter) checkStageName(s *instruction.Stage, seen map[string]bool) {
	node := s.Node()
	if s.Name == "" {
		return
	}
	if s.OrigName != s.Name {
		l.Report(StageNameCasing, node, "Stage name '%s' should be lowercase", s.OrigName)
	}
	if s.Name == instruction.Scratch || s.Name == "context" {
		l.Report(ReservedStageName, node, "Stage name should not use the same name as reserved stage %q", s.Name)
	}
	if seen[s.Name] {
		l.Report(DuplicateStageName, node, "Duplicate stage name %q, stage names should be unique", s.Name)
	}
	seen[s.Name] = true
	if isLower(node.Keyword) != isLower(s.As) {
		l.Report(FromAsCasing, node, "'%s' and '%s' keywords' casing do not match", s.As, node.Keyword)
	}
	if badDescription(node, s.Name, s.Doc()) {
		l.Report(InvalidDefinitionDescription, node, "Comment for FROM should follow the format: `# %s <description>`", s.Name)
	}
}

func (l *Linter) checkArgDescription(a *instruction.Arg) {
	for _, p := range a.Args {
		if a.Doc(p.Name) != "" {
			return
		}
	}
	if name := a.Args[0].Name; badDescription(a.Node(), name, "") {
		l.Report(InvalidDefinitionDescription, a.Node(), "Comment for ARG should follow the format: `# %s <description>`", name)
	}
}

// badDescription tells whether the comment above node is meant as a description and is none.
func badDescription(node *parser.Node, name, doc string) bool {
	if len(node.Comments) == 0 || doc != "" {
		return false
	}
	last := node.Comments[len(node.Comments)-1]
	return last != "" && last != name && !directiveComment.MatchString(last)
}

var directiveComment = regexp.MustCompile(`(?i)^(syntax|escape|check)\s*=`)

func (l *Linter) checkForm(inst instruction.Instruction) {
	switch inst := inst.(type) {
	case *instruction.Maintainer:
		l.Report(MaintainerDeprecated, inst.Node(), "Maintainer instruction is deprecated in favor of using label")
	case *instruction.Env:
		l.checkLegacy(inst.Node(), inst.Pairs)
	case *instruction.Label:
		l.checkLegacy(inst.Node(), inst.Pairs)
	case *instruction.Arg:
		l.checkArgDescription(inst)
	}
}

func (l *Linter) checkLegacy(node *parser.Node, pairs []parser.Pair) {
	name := strings.ToUpper(node.Name)
	for _, p := range pairs {
		if p.Legacy {
			l.Report(LegacyKeyValueFormat, node, `"%[1]s key=value" should be used instead of legacy "%[1]s key value" format`, name)
			return
		}
	}
}

func isLower(s string) bool { return s == strings.ToLower(s) }
func isUpper(s string) bool { return s == strings.ToUpper(s) }

// checkCasing reports instructions that are not written like most of them.
func (l *Linter) checkCasing(nodes []*parser.Node) {
	var lower, upper int
	for _, n := range nodes {
		switch {
		case isLower(n.Keyword):
			lower++
		case isUpper(n.Keyword):
			upper++
		}
	}
	majority, follows := "uppercase", isUpper
	if lower > upper {
		majority, follows = "lowercase", isLower
	}
	for _, n := range nodes {
		if !follows(n.Keyword) {
			l.Report(ConsistentInstructionCasing, n, "Command '%s' should match the case of the command majority (%s)", n.Keyword, majority)
		}
	}
}

// CheckStage reports what is wrong with the instructions of a stage that is built. Shell tells
// that its base has chosen a shell.
func (l *Linter) CheckStage(instructions []instruction.Instruction, shell bool) {
	if l == nil {
		return
	}
	last := map[string]*parser.Node{}
	for _, inst := range instructions {
		node := inst.Node()
		switch inst := inst.(type) {
		case *instruction.Shell:
			shell = true
		case *instruction.Cmd:
			l.checkShellForm(node, inst.Command, shell)
		case *instruction.Entrypoint:
			l.checkShellForm(node, inst.Command, shell)
		case *instruction.Arg:
			for _, a := range inst.Args {
				l.checkSecret(node, a.Name)
			}
		case *instruction.Env:
			for _, p := range inst.Pairs {
				l.checkSecret(node, p.Key)
			}
		}
		switch node.Name {
		case "cmd", "entrypoint", "healthcheck":
			if prev := last[node.Name]; prev != nil {
				l.Report(MultipleInstructionsDisallowed, prev,
					"Multiple %s instructions should not be used in the same stage because only the last one will be used", strings.ToUpper(node.Name))
			}
			last[node.Name] = node
		}
	}
}

func (l *Linter) checkShellForm(node *parser.Node, c instruction.Command, shellSet bool) {
	if c.Shell && !shellSet {
		l.Report(JSONArgsRecommended, node,
			"JSON arguments recommended for %s to prevent unintended behavior related to OS signals", strings.ToUpper(node.Name))
	}
}

var (
	secretTokens = []string{
		"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token",
	}
	allowTokens = []string{"public"}
)

func (l *Linter) checkSecret(node *parser.Node, name string) {
	tokens := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '_' || r == '-' })
	has := func(list []string) bool {
		return slices.ContainsFunc(tokens, func(t string) bool { return slices.Contains(list, t) })
	}
	if has(secretTokens) && !has(allowTokens) {
		l.Report(SecretsUsedInArgOrEnv, node,
			"Do not use ARG or ENV instructions for sensitive data (%s %q)", strings.ToUpper(node.Name), name)
	}
}
