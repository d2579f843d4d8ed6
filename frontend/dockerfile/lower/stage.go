package lower

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// stage is a stage of the file, or an image that an instruction names.
type stage struct {
	// src is nil for an image that an instruction names.
	src *instruction.Stage
	// index is the number of the stage, of an image that of the stage that names it first.
	index int
	// name is shown to users; empty for an image.
	name string
	// from is the base, expanded; location is where it is asked for.
	from     string
	location []parser.Range
	platform ocispec.Platform
	// base is the stage that this one continues, named the context that it starts from. With
	// neither, the base is the image of the reference ref, or the empty tree if that is empty.
	base  *stage
	named *NamedContext
	ref   string
	// replaced tells that named stands for the whole stage and not just for its base.
	replaced bool
	cmds     []*cmd

	visit   visit
	reached bool
	// source answers the request for named or ref.
	source *Source

	// What follows changes while the stage is lowered.
	state llb.State
	image *Image
	// history is what the stage and those that it continues add to that of the image.
	history *past
	// env holds the variables of processes and expansions, imageEnv those of the image.
	env      *vars
	imageEnv *vars
	// envSettled tells that setting the variables of the image once more would change nothing in
	// the State, not even their order.
	envSettled bool
	// args are the names of the arguments that are declared.
	args      *vars
	argParams []Parameter
	// scan are the arguments of the stage that only tell what is scanned.
	scan       map[string]string
	baseConfig []byte
	cmdSet     bool
	workdirSet bool
	// steps is how many vertices the stage has, stepsDone how many of them have a name.
	steps, stepsDone int
}

// addStages evaluates all FROM instructions, then finds what the stages read.
func (b *Build) addStages() error {
	for i, src := range b.opt.Dockerfile.Stages {
		s := &stage{src: src, index: i, name: src.Name, location: src.Location()}
		if s.name == "" {
			s.name = "stage-" + strconv.Itoa(i)
		}
		if err := b.evaluateFrom(s); err != nil {
			return parser.Locate(err, s.location)
		}
		b.stages = append(b.stages, s)
		if src.Name != "" {
			b.stagesByName[src.Name] = append(b.stagesByName[src.Name], s)
		}
	}
	b.named = len(b.stages) > 1
	for _, s := range b.stages {
		if err := b.addCmds(s); err != nil {
			return err
		}
	}
	return nil
}

func (b *Build) evaluateFrom(s *stage) error {
	src := s.src
	r, err := b.expandWith(b.lex.word(), src.Base, b.args)
	if err != nil {
		return err
	}
	b.reportUndeclared(src.Node(), r.Unmatched)
	s.from = r.Text
	if earlier := b.find(s.from, s.index); earlier != nil {
		s.base = earlier
	} else if err := b.checkDefaultBase(src); err != nil {
		return err
	}
	if s.from == "" {
		return fmt.Errorf("base name (%s) should not be blank", src.Base)
	}
	s.platform = b.opt.TargetPlatform
	if s.base != nil {
		s.platform = s.base.platform
	}
	if src.Platform != "" {
		if s.platform, err = b.evaluatePlatform(src); err != nil {
			return err
		}
	}
	if src.Name != "" {
		s.named = b.opt.Named.Lookup(src.Name, s.platform)
	}
	s.replaced = s.named != nil
	if s.named == nil && s.base == nil {
		s.named = b.opt.Named.Lookup(s.from, s.platform)
	}
	if s.named != nil {
		s.base = nil
	}
	return nil
}

// checkDefaultBase reports a base that is no name of an image unless the build sets arguments.
func (b *Build) checkDefaultBase(src *instruction.Stage) error {
	name, err := b.lex.word().Word(src.Base, b.defaults)
	if err != nil {
		return err
	}
	if name != "" && name != instruction.Scratch {
		_, err = reference.ParseNormalizedNamed(name)
	}
	if name == "" || err != nil {
		b.opt.Linter.Report(lint.InvalidDefaultArgInFrom, src.Node(),
			"Default value for ARG %s results in empty or invalid base image name", src.Base)
	}
	return nil
}

func (b *Build) evaluatePlatform(src *instruction.Stage) (ocispec.Platform, error) {
	r, err := b.expandWith(b.lex.word(), src.Platform, b.args)
	if err != nil {
		return ocispec.Platform{}, err
	}
	b.reportUndeclared(src.Node(), r.Unmatched)
	if r.Text == "" {
		return ocispec.Platform{}, fmt.Errorf("empty platform value from expression %s", src.Platform)
	}
	p, err := platforms.Parse(r.Text)
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("failed to parse platform %s: %w", r.Text, err)
	}
	b.lintPlatform(src, p)
	return platforms.Normalize(p), nil
}

func (b *Build) lintPlatform(src *instruction.Stage, p ocispec.Platform) {
	switch {
	case src.Platform == "$TARGETPLATFORM" || src.Platform == "${TARGETPLATFORM}":
		b.opt.Linter.Report(lint.RedundantTargetPlatform, src.Node(),
			"Setting platform to predefined %s in FROM is redundant as this is the default behavior", src.Platform)
	case !strings.Contains(src.Platform, "$") && !strings.Contains(src.Name, p.OS) && !strings.Contains(src.Name, p.Architecture):
		b.opt.Linter.Report(lint.FromPlatformFlagConstDisallowed, src.Node(),
			"FROM --platform flag should not use constant value %q", src.Platform)
	}
}

func (b *Build) reportUndeclared(node *parser.Node, names []string) {
	for _, name := range names {
		if b.declared[name] || !b.opt.Linter.Wants(lint.UndefinedArgInFrom, node) {
			continue
		}
		b.opt.Linter.Report(lint.UndefinedArgInFrom, node, "%v",
			suggest.Wrap(fmt.Errorf("FROM argument '%s' is not declared", name), name, b.args.names()))
	}
}

// find returns the last stage of a name before the stage with the index before.
func (b *Build) find(name string, before int) *stage {
	same := b.stagesByName[strings.ToLower(name)]
	i, _ := slices.BinarySearchFunc(same, before, func(s *stage, n int) int { return cmp.Compare(s.index, n) })
	if i == 0 {
		return nil
	}
	return same[i-1]
}

// stageNames returns the names that users gave.
func (b *Build) stageNames() []string {
	var names []string
	for _, s := range b.stages {
		if s.src.Name != "" {
			names = append(names, s.src.Name)
		}
	}
	return names
}

func (b *Build) pickTarget() error {
	if b.opt.Target == "" {
		b.target = b.stages[len(b.stages)-1]
		return nil
	}
	if b.target = b.find(b.opt.Target, len(b.stages)); b.target == nil {
		return suggest.Wrap(fmt.Errorf("target stage %q could not be found", b.opt.Target), b.opt.Target, b.stageNames())
	}
	return nil
}
