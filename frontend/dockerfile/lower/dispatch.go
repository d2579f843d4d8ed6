package lower

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/sys/signal"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// lowerStage sets the State and the image of a stage whose dependencies are lowered.
func (b *Build) lowerStage(s *stage) error {
	s.steps = s.countSteps()
	if err := b.lowerBase(s); err != nil {
		return parser.Locate(err, s.location)
	}
	if s.src == nil {
		return nil
	}
	s.image.Config.OnBuild = nil
	if !s.replaced {
		insts := make([]instruction.Instruction, 0, len(s.cmds))
		for _, c := range s.cmds {
			insts = append(insts, c.inst)
		}
		b.opt.Linter.CheckStage(insts, len(s.image.Config.Shell) > 0)
	}
	for _, c := range s.cmds {
		if err := b.lowerCmd(s, c); err != nil {
			return parser.Locate(err, c.inst.Location())
		}
	}
	return nil
}

// rank tells whether a tree is lowered before those that instructions make.
func (s *stage) rank() int {
	if s.src == nil || s.replaced {
		return 0
	}
	return 1
}

// countSteps returns the number of vertices: a base image and the instructions that change
// files.
func (s *stage) countSteps() int {
	if s.src == nil {
		return 0
	}
	n := 0
	if s.ref != "" || s.named != nil {
		n++
	}
	for _, c := range s.cmds {
		switch c.inst.(type) {
		case *instruction.Run, *instruction.Copy, *instruction.Add, *instruction.Workdir:
			n++
		}
	}
	return n
}

// lowerBase sets what a stage starts with.
func (b *Build) lowerBase(s *stage) error {
	switch {
	case s.base != nil:
		if err := b.continueStage(s); err != nil {
			return err
		}
	case s.source == nil:
		s.image = emptyImage(s.platform)
		s.state = llb.Scratch()
	default:
		if err := b.startFromSource(s); err != nil {
			return err
		}
	}
	if s.base == nil {
		s.env, s.args = newVars(), newVars()
	}
	s.startEnv()
	s.state = s.state.Platform(s.platform)
	if s.base == nil {
		if s.image.Config.WorkingDir != "" {
			s.state = s.state.Dir(s.dir())
		}
		s.state = s.state.User(s.image.Config.User)
		s.state = b.opt.Process.apply(s.state)
	}
	return nil
}

// startEnv sets the variables of the base image, which win over the arguments of the stage that is
// continued.
func (s *stage) startEnv() {
	if s.base != nil && s.base.envSettled {
		s.imageEnv, s.envSettled = s.base.imageEnv.extend(), true
		return
	}
	list := s.image.Config.Env
	if s.base != nil {
		list = s.base.imageEnv.list()
	}
	s.imageEnv = newVars()
	s.imageEnv.setList(list)
	for _, key := range s.imageEnv.keys {
		s.setEnv(key, s.imageEnv.values[key])
	}
	s.envSettled = true
}

func (b *Build) continueStage(s *stage) error {
	s.platform = s.base.platform
	s.state = s.base.state
	s.image = s.base.image.clone()
	s.history = s.base.history
	s.env = s.base.env.extend()
	s.args = s.base.args.extend()
	s.baseConfig = s.base.baseConfig
	s.workdirSet = s.base.workdirSet
	if s.base.envSettled {
		return b.grow(s.image.size())
	}
	// All variables are set once more, each in a few places.
	return b.grow(s.image.size() + 8*s.env.size)
}

func (b *Build) startFromSource(s *stage) error {
	src := s.source
	s.image = emptyImage(s.platform)
	if src.Config != nil {
		base := &Image{}
		err := json.Unmarshal(src.Config, base)
		if err != nil {
			return fmt.Errorf("failed to parse image config: %w", err)
		}
		if s.baseConfig, err = json.Marshal(base); err != nil {
			return err
		}
		pulled := base.Platform
		s.image = base.forStage(s.platform)
		if s.named == nil {
			b.checkPulled(s, pulled)
		}
	}
	if s.named != nil {
		s.state = src.State
		return nil
	}
	ref, err := pin(cmp.Or(src.Ref, s.ref), src)
	if err != nil {
		return err
	}
	text := ""
	if s.src != nil {
		text = s.src.Node().Text
	}
	s.state = llb.Image(ref,
		llb.Platform(s.platform),
		b.opt.ResolveMode,
		llb.CustomName(b.step(s, "FROM "+ref, false)),
		command(text),
		b.location(s.location),
	)
	return nil
}

// pin adds the digest that an image was resolved to.
func pin(name string, src *Source) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	if src.Digest == "" {
		return ref.String(), nil
	}
	if d, ok := ref.(reference.Digested); ok && d.Digest() == src.Digest {
		return ref.String(), nil
	}
	pinned, err := reference.WithDigest(ref, src.Digest)
	if err != nil {
		return "", err
	}
	return pinned.String(), nil
}

func (b *Build) checkPulled(s *stage, img ocispec.Platform) {
	want := platforms.Format(platforms.Normalize(s.platform))
	if img.OS == "" || img.Architecture == "" {
		return
	}
	pulled := platforms.Format(platforms.Normalize(img))
	if pulled == want {
		return
	}
	b.opt.Linter.ReportAt(lint.InvalidBaseImagePlatform, s.location,
		"Base image %s was pulled with platform %q, expected %q for current build", s.from, pulled, want)
}

func (b *Build) location(at []parser.Range) llb.ConstraintsOpt {
	return b.opt.Source.Location(Ranges(at)...)
}

// setEnv sets a variable of processes and of expansions, but not of the image.
func (s *stage) setEnv(key, value string) {
	s.env.set(key, value)
	s.state = s.state.AddEnv(key, value)
}

// ignoreCache returns an option if a stage ignores the cache.
func (b *Build) ignoreCache(s *stage) []llb.ConstraintsOpt {
	ignore := b.opt.NoCacheAll
	for _, name := range b.opt.NoCache {
		ignore = ignore || strings.EqualFold(name, s.name)
	}
	if ignore {
		return []llb.ConstraintsOpt{llb.IgnoreCache()}
	}
	return nil
}

// expand expands a word of an instruction and reports variables that are not set.
func (b *Build) expand(s *stage, word string, node *parser.Node) (string, error) {
	r, err := b.expandWith(b.lex.word(), word, s.env)
	b.reportUnset(s, node, r.Unmatched)
	return r.Text, err
}

func (b *Build) reportUnset(s *stage, node *parser.Node, names []string) {
	for _, name := range names {
		if _, ok := s.args.Get(name); ok || !b.opt.Linter.Wants(lint.UndefinedVar, node) {
			continue
		}
		message := fmt.Sprintf("Usage of undefined variable '$%s'", name)
		if near := suggest.Search(name, s.env.names()); near != "" {
			message += fmt.Sprintf(" (did you mean $%s?)", near)
		}
		b.opt.Linter.Report(lint.UndefinedVar, node, "%s", message)
	}
}

func (b *Build) expandAll(s *stage, words []string, node *parser.Node) ([]string, error) {
	out := make([]string, 0, len(words))
	for _, w := range words {
		text, err := b.expand(s, w, node)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

func (b *Build) expandPairs(s *stage, pairs []parser.Pair, node *parser.Node) ([]parser.Pair, error) {
	out := make([]parser.Pair, 0, len(pairs))
	for _, p := range pairs {
		key, err := b.expand(s, p.Key, node)
		if err != nil {
			return nil, err
		}
		value, err := b.expand(s, p.Value, node)
		if err != nil {
			return nil, err
		}
		out = append(out, parser.Pair{Key: key, Value: value})
	}
	return out, nil
}

func (b *Build) lowerCmd(s *stage, c *cmd) error {
	switch inst := c.inst.(type) {
	case *instruction.Arg:
		return b.arg(s, inst)
	case *instruction.Env:
		return b.env(s, inst)
	case *instruction.Label:
		return b.label(s, inst)
	case *instruction.Run:
		return b.run(s, c, inst)
	case *instruction.Copy:
		return b.copy(s, c, inst)
	case *instruction.Add:
		return b.add(s, c, inst)
	case *instruction.Workdir:
		return b.workdir(s, c, inst)
	case *instruction.User:
		return b.user(s, inst)
	case *instruction.Cmd:
		b.cmd(s, inst)
	case *instruction.Entrypoint:
		b.entrypoint(s, inst)
	case *instruction.Healthcheck:
		b.healthcheck(s, inst)
	case *instruction.Expose:
		return b.expose(s, inst)
	case *instruction.Volume:
		return b.volume(s, inst)
	case *instruction.StopSignal:
		return b.stopSignal(s, inst)
	case *instruction.Shell:
		s.image.Config.Shell = inst.Shell
		s.commit(b.epoch, fmt.Sprintf("SHELL %v", inst.Shell), false)
	case *instruction.Onbuild:
		s.image.Config.OnBuild = append(s.image.Config.OnBuild, inst.Trigger)
	case *instruction.Maintainer:
		s.image.Author = inst.Author
		s.commit(b.epoch, "MAINTAINER "+inst.Author, false)
	default:
		return fmt.Errorf("instruction %T is not known", inst)
	}
	return nil
}

func (b *Build) env(s *stage, env *instruction.Env) error {
	pairs, err := b.expandPairs(s, env.Pairs, env.Node())
	if err != nil {
		return err
	}
	for _, p := range pairs {
		_, known := s.env.Get(p.Key)
		s.envSettled = s.envSettled && !known && p.Key != "" && !strings.Contains(p.Key, "=")
		s.setEnv(p.Key, p.Value)
		s.imageEnv.set(p.Key, p.Value)
	}
	s.commit(b.epoch, "ENV"+joinPairs(pairs), false)
	return nil
}

func joinPairs(pairs []parser.Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(" " + p.Key + "=" + p.Value)
	}
	return b.String()
}

func (b *Build) label(s *stage, label *instruction.Label) error {
	pairs, err := b.expandPairs(s, label.Pairs, label.Node())
	if err != nil {
		return err
	}
	for _, p := range pairs {
		s.image.setLabel(p.Key, p.Value)
	}
	s.commit(b.epoch, "LABEL"+joinPairs(pairs), false)
	return nil
}

func (b *Build) user(s *stage, user *instruction.User) error {
	name, err := b.expand(s, user.User, user.Node())
	if err != nil {
		return err
	}
	s.image.Config.User = name
	s.state = s.state.User(name)
	s.commit(b.epoch, "USER "+name, false)
	return nil
}

func (b *Build) cmd(s *stage, c *instruction.Cmd) {
	args := c.Args
	if c.Shell {
		args = s.image.withShell(args)
	}
	s.image.Config.Cmd = args
	s.image.Config.ArgsEscaped = true //nolint:staticcheck // clients of Windows images read it
	s.cmdSet = true
	s.commit(b.epoch, fmt.Sprintf("CMD %q", args), false)
}

func (b *Build) entrypoint(s *stage, e *instruction.Entrypoint) {
	args := e.Args
	if e.Shell {
		args = s.image.withShell(args)
	}
	s.image.Config.Entrypoint = args
	if !s.cmdSet {
		// An inherited command was made for another program.
		s.image.Config.Cmd = nil
	}
	s.commit(b.epoch, fmt.Sprintf("ENTRYPOINT %q", args), false)
}

func (b *Build) healthcheck(s *stage, h *instruction.Healthcheck) {
	check := Healthcheck{
		Interval:      h.Interval,
		Timeout:       h.Timeout,
		StartPeriod:   h.StartPeriod,
		StartInterval: h.StartInterval,
		Retries:       h.Retries,
	}
	switch {
	case h.None:
		check.Test = []string{"NONE"}
	case h.Shell:
		check.Test = []string{"CMD-SHELL", strings.Join(h.Args, " ")}
	default:
		check.Test = append([]string{"CMD"}, h.Args...)
	}
	s.image.Config.Healthcheck = &check
	s.commit(b.epoch, fmt.Sprintf("HEALTHCHECK %+v", check), false)
}

func (b *Build) volume(s *stage, v *instruction.Volume) error {
	paths, err := b.expandAll(s, v.Paths, v.Node())
	if err != nil {
		return err
	}
	if s.image.Config.Volumes == nil {
		s.image.Config.Volumes = map[string]struct{}{}
	}
	for _, p := range paths {
		if p == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		s.image.Config.Volumes[p] = struct{}{}
	}
	s.commit(b.epoch, fmt.Sprintf("VOLUME %v", paths), false)
	return nil
}

func (b *Build) stopSignal(s *stage, sig *instruction.StopSignal) error {
	name, err := b.expand(s, sig.Signal, sig.Node())
	if err != nil {
		return err
	}
	if _, err := signal.ParseSignal(name); err != nil {
		return err
	}
	s.image.Config.StopSignal = name
	s.commit(b.epoch, "STOPSIGNAL "+name, false)
	return nil
}

func (b *Build) workdir(s *stage, c *cmd, w *instruction.Workdir) error {
	dir, err := b.expand(s, w.Path, w.Node())
	if err != nil {
		return err
	}
	if !s.workdirSet && !isAbs(s.platform.OS, dir) {
		b.opt.Linter.Report(lint.WorkdirRelativePath, w.Node(),
			"Relative workdir %q can have unexpected results if the base image changes", dir)
	}
	s.workdirSet = true
	if dir, err = slashed(s.platform.OS, dir); err != nil {
		return err
	}
	dir = joinDir(s.dir(), dir)
	known := withDrive(s.platform.OS, dir)
	s.state = s.state.Dir(dir)
	s.image.Config.WorkingDir = known
	if s.platform.OS == windows {
		s.image.Config.WorkingDir = strings.ReplaceAll(known, "/", `\`)
	}
	layer := dir != "/"
	if layer {
		opts := append(b.ignoreCache(s),
			llb.CustomName(b.step(s, display(c, b.lex.word(), s.env), true)),
			b.location(w.Location()),
		)
		s.state = s.state.File(llb.Mkdir(dir, 0o755, b.mkdirOptions(s)...), opts...)
	}
	s.commit(b.epoch, "WORKDIR "+known, layer)
	return nil
}

func (b *Build) mkdirOptions(s *stage) []llb.MkdirOption {
	opts := []llb.MkdirOption{llb.WithParents()}
	if user := s.image.Config.User; user != "" {
		opts = append(opts, llb.WithOwner(llb.ParseOwner(user)))
	}
	if b.epoch != nil {
		opts = append(opts, llb.WithTime(*b.epoch))
	}
	return opts
}

// joinDir returns dir as an absolute path, from cwd if it is relative. A slash at the end of an
// absolute path stays.
func joinDir(cwd, dir string) string {
	if !path.IsAbs(dir) {
		return path.Join("/", cwd, dir)
	}
	clean := path.Clean(dir)
	if clean != "/" && strings.HasSuffix(dir, "/") {
		clean += "/"
	}
	return clean
}
