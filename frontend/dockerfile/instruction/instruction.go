// Package instruction gives the nodes of a Dockerfile their meaning: stages, and one type per
// instruction with its flags and arguments, checked for number and form.
//
// Values keep their variables: package lower expands them in the environment of the stage. The
// package does no I/O. Errors of Parse carry their location as *parser.Error.
package instruction

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// Scratch is the base of a stage that starts with an empty tree.
const Scratch = "scratch"

// Instruction is one instruction of a stage: a pointer to one of the types of this package.
type Instruction interface {
	// Node returns the node that the instruction was parsed from. All instructions that come
	// from an ONBUILD trigger share the location of the FROM that ran it.
	Node() *parser.Node
	// Location returns the lines of the instruction.
	Location() []parser.Range
}

// base is embedded by all instructions.
type base struct {
	node *parser.Node
}

func (b base) Node() *parser.Node       { return b.node }
func (b base) Location() []parser.Range { return b.node.Location() }

// Dockerfile is a file as a list of stages.
type Dockerfile struct {
	// Args are the ARG instructions before the first stage.
	Args []*Arg
	// Stages is never empty.
	Stages []*Stage
}

// Stage is a FROM and the instructions after it.
type Stage struct {
	base
	// Name is the name of the stage in lower case; empty without AS. OrigName is as written.
	Name, OrigName string
	// Base is the name of an image or of an earlier stage, with its variables.
	Base string
	// Platform is the value of --platform, with its variables.
	Platform string
	// As is the keyword AS as written; empty without a name.
	As string
	// Instructions do not include the FROM.
	Instructions []Instruction
}

// Doc returns the description in the comment above, if it begins with the stage's name.
func (s *Stage) Doc() string { return doc(s.node, s.Name) }

// doc returns the text after name in the last comment line above node.
func doc(node *parser.Node, name string) string {
	if name == "" || len(node.Comments) == 0 {
		return ""
	}
	first, rest, _ := strings.Cut(node.Comments[len(node.Comments)-1], " ")
	if !strings.EqualFold(first, name) {
		return ""
	}
	return strings.TrimSpace(rest)
}

// Parse turns the nodes of a file into stages.
func Parse(f *parser.File) (*Dockerfile, error) {
	d := &Dockerfile{}
	for _, node := range f.Nodes {
		if err := d.add(node, f.Escape); err != nil {
			return nil, parser.Locate(err, node.Location())
		}
	}
	if len(d.Stages) == 0 {
		return nil, errors.New("dockerfile contains no stages to build")
	}
	return d, nil
}

func (d *Dockerfile) add(node *parser.Node, escape byte) error {
	if node.Name == "from" {
		stage, err := parseFrom(node)
		if err != nil {
			return parseError(node, err)
		}
		d.Stages = append(d.Stages, stage)
		return nil
	}
	inst, err := parse(node, escape)
	if err != nil {
		return parseError(node, err)
	}
	if len(d.Stages) > 0 {
		stage := d.Stages[len(d.Stages)-1]
		stage.Instructions = append(stage.Instructions, inst)
		return nil
	}
	arg, ok := inst.(*Arg)
	if !ok {
		return errors.New("no build stage in current context")
	}
	d.Args = append(d.Args, arg)
	return nil
}

func parseError(node *parser.Node, err error) error {
	return fmt.Errorf("dockerfile parse error on line %d: %w", node.Range.Start.Line, err)
}

// ParseTrigger parses the text of an ONBUILD trigger. The instruction gets the location of at.
func ParseTrigger(text string, escape byte, at *parser.Node) (Instruction, error) {
	node, err := parser.ParseInstruction(text, escape)
	if err != nil {
		return nil, fmt.Errorf("ONBUILD trigger %q: %w", text, err)
	}
	if err := checkTrigger(node); err != nil {
		return nil, err
	}
	node.Range = at.Range
	inst, err := parse(node, escape)
	if err != nil {
		return nil, parseError(at, err)
	}
	return inst, nil
}

type parseFunc func(node *parser.Node, f *flags, escape byte) (Instruction, error)

// parsers is a function because a variable would depend on itself through ONBUILD.
func parsers(name string) (parseFunc, bool) {
	switch name {
	case "add":
		return parseAdd, true
	case "arg":
		return parseArg, true
	case "cmd":
		return parseCmd, true
	case "copy":
		return parseCopy, true
	case "entrypoint":
		return parseEntrypoint, true
	case "env":
		return parseEnv, true
	case "expose":
		return parseExpose, true
	case "healthcheck":
		return parseHealthcheck, true
	case "label":
		return parseLabel, true
	case "maintainer":
		return parseMaintainer, true
	case "onbuild":
		return parseOnbuild, true
	case "run":
		return parseRun, true
	case "shell":
		return parseShell, true
	case "stopsignal":
		return parseStopSignal, true
	case "user":
		return parseUser, true
	case "volume":
		return parseVolume, true
	case "workdir":
		return parseWorkdir, true
	}
	return nil, false
}

// keywords are the names of all instructions, for suggestions.
var keywords = []string{
	"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
	"MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}

func parse(node *parser.Node, escape byte) (Instruction, error) {
	fn, ok := parsers(node.Name)
	if !ok {
		return nil, suggest.Wrap(fmt.Errorf("unknown instruction: %s", node.Keyword), strings.ToUpper(node.Keyword), keywords)
	}
	f := &flags{}
	inst, err := fn(node, f, escape)
	if err != nil {
		return nil, err
	}
	return inst, nil
}

var stageName = regexp.MustCompile(`^[a-z][a-z0-9-_.]*$`)

func parseFrom(node *parser.Node) (*Stage, error) {
	var f flags
	s := &Stage{base: base{node}}
	f.str(&s.Platform, "platform")
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	switch args := node.Args; {
	case len(args) == 3 && strings.EqualFold(args[1], "as"):
		s.As, s.OrigName, s.Name = args[1], args[2], strings.ToLower(args[2])
		if !stageName.MatchString(s.Name) {
			return nil, fmt.Errorf("invalid name for build stage: %q, name can't start with a number or contain symbols", args[2])
		}
	case len(args) != 1:
		return nil, errors.New("FROM requires either one or three arguments")
	}
	s.Base = node.Args[0]
	return s, nil
}

func exactlyOne(node *parser.Node) (string, error) {
	if len(node.Args) != 1 {
		return "", fmt.Errorf("%s requires exactly one argument", strings.ToUpper(node.Name))
	}
	return node.Args[0], nil
}

func atLeastOne(node *parser.Node) error {
	if len(node.Args) == 0 && len(node.Pairs) == 0 {
		return fmt.Errorf("%s requires at least one argument", strings.ToUpper(node.Name))
	}
	return nil
}

// Index reads the name of a stage as its number.
func Index(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil
}
