package lower

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// cmd is an instruction with the trees that it reads.
type cmd struct {
	inst instruction.Instruction
	// trigger tells that the instruction comes from ONBUILD.
	trigger bool
	// from is the tree of COPY --from; nil is the build context.
	from *stage
	// mounts are the trees of RUN --mount that name one; nil for the others.
	mounts []*stage
}

// deps returns the trees that the command reads, other than the build context.
func (c *cmd) deps() []*stage {
	var out []*stage
	for _, s := range append(c.mounts[:len(c.mounts):len(c.mounts)], c.from) {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// deps yields the trees that the stage reads, with the place where it does so.
func (s *stage) deps() iter.Seq2[*stage, []parser.Range] {
	return func(yield func(*stage, []parser.Range) bool) {
		if s.base != nil && !yield(s.base, s.location) {
			return
		}
		for _, c := range s.cmds {
			for _, dep := range c.deps() {
				if !yield(dep, c.inst.Location()) {
					return
				}
			}
		}
	}
}

// addCmds sets the commands of a stage: the triggers of the stage that it continues, and its own.
func (b *Build) addCmds(s *stage) error {
	if s.replaced {
		return nil
	}
	if s.base != nil && s.base.src != nil {
		for _, inst := range s.base.src.Instructions {
			on, ok := inst.(*instruction.Onbuild)
			if !ok {
				continue
			}
			if err := b.addTrigger(s, on.Trigger); err != nil {
				return err
			}
		}
	}
	for _, inst := range s.src.Instructions {
		c, err := b.newCmd(s, inst)
		if err != nil {
			return parser.Locate(err, inst.Location())
		}
		s.cmds = append(s.cmds, c)
	}
	return nil
}

// triggerSize is what a trigger takes in a stage besides its text, in bytes and about.
const triggerSize = 512

// addTrigger appends an ONBUILD trigger to the commands of a stage.
func (b *Build) addTrigger(s *stage, text string) error {
	if err := b.grow(len(text) + triggerSize); err != nil {
		return parser.WithLocation(err, s.location)
	}
	inst, err := instruction.ParseTrigger(text, b.opt.File.Escape, s.src.Node())
	if err != nil {
		return parser.WithLocation(err, s.location)
	}
	c, err := b.newCmd(s, inst)
	if err != nil {
		return parser.Locate(err, s.location)
	}
	c.trigger = true
	s.cmds = append(s.cmds, c)
	return nil
}

// newCmd finds the trees that an instruction reads.
func (b *Build) newCmd(s *stage, inst instruction.Instruction) (*cmd, error) {
	c := &cmd{inst: inst}
	switch inst := inst.(type) {
	case *instruction.Copy:
		if inst.From == "" {
			break
		}
		if err := inst.CheckFrom(); err != nil {
			return nil, err
		}
		from, err := b.tree(s, inst.From, inst.Location())
		if err != nil {
			return nil, err
		}
		c.from = from
	case *instruction.Run:
		// A mount is a tree of its own even if it is empty: names tell stages apart from it.
		b.named = b.named || len(inst.Mounts) > 0
		for _, m := range inst.Mounts {
			var from *stage
			if m.From != "" {
				var err error
				if from, err = b.tree(s, m.From, inst.Location()); err != nil {
					return nil, err
				}
			}
			c.mounts = append(c.mounts, from)
		}
	}
	return c, nil
}

// tree returns the stage or image of a name that an instruction of s reads from.
func (b *Build) tree(s *stage, name string, location []parser.Range) (*stage, error) {
	if found := b.find(name, s.index); found != nil {
		return found, nil
	}
	// A stage that comes later is too late; lowering says so, unless a cycle explains more.
	if found := b.find(name, len(b.stages)); found != nil {
		return found, nil
	}
	if i, ok := instruction.Index(name); ok {
		if i < 0 || i >= len(b.stages) {
			return nil, fmt.Errorf("invalid stage index %d", i)
		}
		return b.stages[i], nil
	}
	b.named = true
	key := strings.ToLower(name)
	if found := b.imagesByName[key]; found != nil {
		return found, nil
	}
	img := &stage{index: s.index, from: name, location: location, platform: b.opt.TargetPlatform}
	img.named = b.opt.Named.Lookup(name, img.platform)
	b.imagesByName[key] = img
	b.images = append(b.images, img)
	return img, nil
}

type visit int

const (
	unvisited visit = iota
	visiting
	visited
)

// checkCycles reports stages that the target needs and that depend on themselves.
func (b *Build) checkCycles() error {
	needed := map[*stage]bool{}
	stack := []*stage{b.target}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if needed[s] {
			continue
		}
		needed[s] = true
		for dep := range s.deps() {
			stack = append(stack, dep)
		}
	}
	for _, s := range b.stages {
		if needed[s] {
			if err := s.checkCycle(); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCycle walks depth first. The depth is at most the number of stages.
func (s *stage) checkCycle() error {
	if s.visit == visited {
		return nil
	}
	s.visit = visiting
	for dep, at := range s.deps() {
		if dep.visit == visiting {
			return parser.WithLocation(fmt.Errorf("circular dependency detected on stage: %s", dep.name), at)
		}
		if err := dep.checkCycle(); err != nil {
			return parser.WithLocation(err, at)
		}
	}
	s.visit = visited
	return nil
}

// reach marks all that s depends on, and asks for what has to be fetched.
func (b *Build) reach(s *stage) error {
	stack := []*stage{s}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if s.reached {
			continue
		}
		s.reached = true
		if err := b.request(s); err != nil {
			return parser.Locate(err, s.location)
		}
		for dep := range s.deps() {
			stack = append(stack, dep)
		}
	}
	return nil
}

// requestKey identifies a Request.
type requestKey struct {
	image, context, platform string
}

// request asks for the base of a stage, if it is neither a stage nor empty.
func (b *Build) request(s *stage) error {
	if s.base != nil || s.named == nil && s.from == instruction.Scratch {
		return nil
	}
	req := &Request{Context: s.named, Platform: s.platform, stages: []*stage{s}}
	key := requestKey{platform: platforms.Format(s.platform)}
	internal := "[internal]"
	if b.opt.PlatformNames {
		internal = "[" + key.platform + " internal]"
	}
	if s.named != nil {
		key.context = s.named.Name
	} else {
		ref, err := reference.ParseNormalizedNamed(s.from)
		if err != nil {
			return fmt.Errorf("failed to parse stage name %q: %w", s.from, err)
		}
		s.ref = reference.TagNameOnly(ref).String()
		req.Image, key.image = s.ref, s.ref
		req.LogName = internal + " load metadata for " + s.ref
	}
	if known := b.requests[key]; known != nil {
		known.stages = append(known.stages, s)
		if answer := known.stages[0].source; answer != nil {
			return b.answer(s, *answer)
		}
		return nil
	}
	b.requests[key] = req
	b.pending = append(b.pending, req)
	return nil
}

// Answer gives a request its answer.
func (b *Build) Answer(r *Request, src Source) error {
	for _, s := range r.stages {
		if err := b.answer(s, src); err != nil {
			return parser.Locate(err, s.location)
		}
	}
	if !b.unchecked {
		return nil
	}
	b.unchecked = false
	for _, s := range b.stages {
		s.visit = unvisited
	}
	return b.checkCycles()
}

// answer sets the base of a stage and adds the triggers that it brings.
func (b *Build) answer(s *stage, src Source) error {
	s.source = &src
	if s.src == nil || s.replaced || src.Config == nil {
		return nil
	}
	var img Image
	if err := json.Unmarshal(src.Config, &img); err != nil {
		return fmt.Errorf("failed to parse image config: %w", err)
	}
	if len(img.Config.OnBuild) == 0 {
		return nil
	}
	own := s.cmds
	s.cmds = nil
	for _, text := range img.Config.OnBuild {
		if err := b.addTrigger(s, text); err != nil {
			return err
		}
	}
	triggers := s.cmds
	s.cmds = append(s.cmds, own...)
	for _, c := range triggers {
		for _, dep := range c.deps() {
			if err := b.reach(dep); err != nil {
				return err
			}
		}
	}
	b.unchecked = true
	return nil
}

// Fail returns the error for a request that could not be answered.
func (b *Build) Fail(r *Request, err error) error {
	s := r.stages[0]
	if r.Image != "" {
		err = suggest.Wrap(fmt.Errorf("%s: %w", s.from, err), s.from, b.stageNames())
	}
	return parser.Locate(err, s.location)
}
