package lower

import (
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// globalArgs evaluates the arguments before the first stage, after those of the platforms.
func (b *Build) globalArgs() error {
	b.args = platformArgs(b.opt)
	b.defaults = b.args.clone()
	b.declared = map[string]bool{}
	for _, arg := range b.opt.Dockerfile.Args {
		// Other than in a stage, words see what those before them in the instruction set.
		for _, a := range arg.Args {
			b.declared[a.Name] = true
			if err := b.globalArg(a); err != nil {
				return parser.WithLocation(err, arg.Location())
			}
		}
	}
	return nil
}

// globalArg sets an argument to the value of the build, or else to its default. A default that is not
// used may be one that cannot be expanded.
func (b *Build) globalArg(a instruction.ArgPair) error {
	given, ok := b.opt.BuildArgs[a.Name]
	if ok {
		b.args.set(a.Name, given)
	}
	if a.Default == nil {
		return nil
	}
	def, err := b.expandWith(b.lex.word(), *a.Default, b.defaults)
	if err == nil {
		b.defaults.set(a.Name, def.Text)
	}
	if ok {
		return nil
	}
	value, err := b.expandWith(b.lex.word(), *a.Default, b.args)
	if err == nil {
		b.args.set(a.Name, value.Text)
	}
	return err
}

// platformArgs are the arguments that every file has in its global scope.
func platformArgs(opt Options) *vars {
	v := newVars()
	set := func(prefix string, p ocispec.Platform) {
		p = platforms.Normalize(p)
		v.set(prefix+"PLATFORM", platforms.Format(p))
		v.set(prefix+"OS", p.OS)
		v.set(prefix+"OSVERSION", p.OSVersion)
		v.set(prefix+"ARCH", p.Architecture)
		v.set(prefix+"VARIANT", p.Variant)
	}
	set("BUILD", opt.BuildPlatform)
	set("TARGET", opt.TargetPlatform)
	stage := opt.Target
	if stage == "" {
		stage = "default"
	}
	v.set("TARGETSTAGE", stage)
	for _, key := range v.keys {
		if value, ok := opt.BuildArgs[key]; ok {
			v.set(key, value)
		}
	}
	return v
}

// arg declares arguments in a stage.
func (b *Build) arg(s *stage, arg *instruction.Arg) error {
	args := make([]instruction.ArgPair, len(arg.Args))
	for i, a := range arg.Args {
		name, err := b.expand(s, a.Name, arg.Node())
		if err != nil {
			return err
		}
		args[i].Name = name
		if a.Default == nil {
			continue
		}
		value, err := b.expand(s, *a.Default, arg.Node())
		if err != nil {
			return err
		}
		args[i].Default = &value
	}
	var message strings.Builder
	message.WriteString("ARG")
	for _, a := range args {
		value := b.argValue(a.Name, a.Default)
		message.WriteString(" " + a.Name)
		s.args.set(a.Name, "")
		if value == nil {
			s.argParams = append(s.argParams, argParameter(arg, a.Name, ""))
			continue
		}
		s.argParams = append(s.argParams, argParameter(arg, a.Name, *value))
		message.WriteString("=" + *value)
		if strings.HasPrefix(a.Name, scanPrefix) {
			s.noteScan(a.Name, *value)
			continue
		}
		s.setEnv(a.Name, *value)
		s.envSettled = false
	}
	s.commit(b.epoch, message.String(), false)
	return nil
}

// argValue returns the value of an argument in a stage: that of the build, else the default of the
// stage, else that of the global argument; nil without any.
func (b *Build) argValue(name string, def *string) *string {
	if v, ok := b.opt.BuildArgs[name]; ok {
		return &v
	}
	if def == nil {
		if v, ok := b.args.Get(name); ok {
			return &v
		}
	}
	return def
}

// argList returns the arguments of a stage for its history: their number and values.
func (s *stage) argList() []string {
	names := s.args.names()
	out := make([]string, 0, len(names))
	for _, name := range names {
		value, _ := s.env.Get(name)
		out = append(out, name+"="+value)
	}
	return out
}

// proxyEnv returns the proxies among the build arguments, which need no declaration.
func proxyEnv(args map[string]string) (llb.ProxyEnv, bool) {
	var p llb.ProxyEnv
	found := false
	// Keys are sorted so that of two cases of one name the upper one is overridden always.
	for _, key := range sortedKeys(args) {
		var dst *string
		switch strings.ToLower(key) {
		case "http_proxy":
			dst = &p.HTTP
		case "https_proxy":
			dst = &p.HTTPS
		case "ftp_proxy":
			dst = &p.FTP
		case "no_proxy":
			dst = &p.No
		case "all_proxy":
			dst = &p.All
		default:
			continue
		}
		*dst = args[key]
		found = true
	}
	return p, found
}
