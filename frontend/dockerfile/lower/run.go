package lower

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// scriptDir is where scripts of here-documents with an interpreter line are mounted.
const scriptDir = "/dev/pipes"

var (
	errNoCommand   = errors.New("RUN requires a command")
	errDevice      = errors.New("device feature is only supported in Dockerfile frontend 1.14.0-labs or later")
	errDeviceNoCap = errors.New("RUN --device requires a daemon that gives steps devices")
)

// apply sets on a State what every process was told.
func (p Process) apply(st llb.State) llb.State {
	if p.Hostname != "" {
		st = st.Hostname(p.Hostname)
	}
	if p.CgroupParent != "" {
		st = st.CgroupParent(p.CgroupParent)
	}
	for _, h := range p.ExtraHosts {
		st = st.AddExtraHost(h.Host, h.IP)
	}
	for _, u := range p.Ulimits {
		st = st.AddUlimit(u.Name, u.Soft, u.Hard)
	}
	return st.Network(p.Network).Security(p.Security)
}

func (b *Build) run(s *stage, c *cmd, run *instruction.Run) error {
	args, suffix, opts, err := b.command(s, run)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errNoCommand
	}
	mounts, secrets, err := b.mounts(s, c, run)
	if err != nil {
		return err
	}
	devices, err := b.devices(s, run)
	if err != nil {
		return err
	}
	opts = slices.Concat(opts, mounts, devices, b.processOptions(s, run))
	env := masked{s.env, secrets}
	if expanded, err := b.lex.script().Word(suffix, env); err == nil {
		suffix = expanded
	}
	name := display(c, b.lex.script(), env) + suffix
	opts = append(opts,
		llb.Args(args...),
		llb.CustomName(b.step(s, name, true)),
		command(run.Node().Text),
		b.location(run.Location()),
	)
	history := "RUN "
	if list := s.argList(); len(list) > 0 {
		history += fmt.Sprintf("|%d %s ", len(list), strings.Join(list, " "))
	}
	s.state = s.state.Run(opts...).Root()
	s.commit(b.epoch, history+strings.Join(args, " ")+" # buildkit", true)
	return b.grow(s.env.size + len(name) + len(history))
}

// command returns the arguments of a RUN, what its name ends in, and the mounts that it takes.
func (b *Build) command(s *stage, run *instruction.Run) (args []string, suffix string, opts []llb.RunOption, err error) {
	docs := run.Heredocs()
	switch {
	case len(docs) == 0:
		args = run.Args
	case len(docs) == 1 && len(run.Args) == 1 && run.Args[0] == docs[0].Word && docs[0].FileDescriptor == "":
		// The document is the command.
		body := docs[0].Body()
		args, suffix = []string{body}, heredocSuffix(docs[0])
		if strings.HasPrefix(body, "#!") {
			args, opts, err = b.script(docs[0], body)
		}
	default:
		args = []string{withHeredocs(strings.Join(run.Args, " "), docs)}
	}
	if run.Shell {
		args = s.image.withShell(args)
	}
	return args, suffix, opts, err
}

// withHeredocs gives a shell the documents that its command names.
func withHeredocs(command string, docs []parser.Heredoc) string {
	var out strings.Builder
	out.WriteString(command)
	for _, h := range docs {
		out.WriteString("\n" + h.Raw + h.Name)
	}
	return out.String()
}

// script mounts a script with an interpreter line.
func (b *Build) script(doc parser.Heredoc, body string) ([]string, []llb.RunOption, error) {
	tree, name, err := b.document(doc.Name, 0o755, body)
	if err != nil {
		return nil, nil, err
	}
	return []string{path.Join(scriptDir, name)}, []llb.RunOption{llb.AddMount(scriptDir, tree, llb.Readonly())}, nil
}

func (b *Build) mkfileOptions() []llb.MkfileOption {
	if b.epoch == nil {
		return nil
	}
	return []llb.MkfileOption{llb.WithTime(*b.epoch)}
}

// processOptions are the options of a RUN besides its command and mounts.
func (b *Build) processOptions(s *stage, run *instruction.Run) []llb.RunOption {
	opts := []llb.RunOption{llb.RemoveMountStubsRecursive()}
	for _, o := range b.ignoreCache(s) {
		opts = append(opts, o)
	}
	if proxy, ok := proxyEnv(b.opt.BuildArgs); ok {
		opts = append(opts, proxy)
	}
	if b.opt.Process.Resources != nil {
		opts = append(opts, llb.LinuxResources(b.opt.Process.Resources))
	}
	if b.opt.Process.ShmSize > 0 {
		opts = append(opts, llb.AddMount("/dev/shm", llb.Scratch(), llb.Tmpfs(b.opt.Process.ShmSize)))
	}
	switch run.Network {
	case instruction.NetworkNone:
		opts = append(opts, llb.Network(pb.NetMode_NONE))
	case instruction.NetworkHost:
		opts = append(opts, llb.Network(pb.NetMode_HOST))
	}
	if run.Security == instruction.SecurityInsecure {
		opts = append(opts, llb.Security(pb.SecurityMode_INSECURE))
	}
	return opts
}

// devices returns the devices of a RUN.
func (b *Build) devices(s *stage, run *instruction.Run) ([]llb.RunOption, error) {
	switch {
	case len(run.Devices) == 0:
		return nil, nil
	case !b.opt.Labs:
		return nil, errDevice
	case !b.opt.Devices:
		return nil, errDeviceNoCap
	}
	expand := func(word string) (string, error) { return b.expand(s, word, run.Node()) }
	var opts []llb.RunOption
	for _, value := range run.Devices {
		d, err := instruction.ParseDevice(value, expand)
		if err != nil {
			return nil, err
		}
		opts = append(opts, llb.AddCDIDevice(d.Name, !d.Required))
	}
	return opts, nil
}

// mounts returns the mounts of a RUN, and the variables that secrets are in, hidden.
func (b *Build) mounts(s *stage, c *cmd, run *instruction.Run) ([]llb.RunOption, map[string]string, error) {
	var opts []llb.RunOption
	secrets := map[string]string{}
	expand := func(word string) (string, error) { return b.expand(s, word, run.Node()) }
	for i, raw := range run.Mounts {
		m, err := raw.Expand(expand)
		if err != nil {
			return nil, nil, err
		}
		var opt llb.RunOption
		switch m.Type {
		case instruction.MountSecret:
			opt = secretMount(s, m)
			addParameter(&b.params.secrets, m.ID, m.Required, run.Location())
			if m.Env != nil {
				secrets[*m.Env] = "****"
			}
		case instruction.MountSSH:
			opt = sshMount(s, m)
			addParameter(&b.params.ssh, cmp.Or(m.ID, "default"), m.Required, run.Location())
		default:
			if opt, err = b.treeMount(s, c.mounts[i], m); err != nil {
				return nil, nil, err
			}
		}
		opts = append(opts, opt)
	}
	return opts, secrets, nil
}

// treeMount mounts a tree: of the build context, of a stage or image, a cache or a tmpfs.
func (b *Build) treeMount(s *stage, from *stage, m *instruction.Mount) (llb.RunOption, error) {
	target := s.mountTarget(m.Target)
	if target == "/" {
		return nil, fmt.Errorf("invalid mount target %q", target)
	}
	if from != nil && from.image == nil {
		return nil, fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", m.From, m.Target)
	}
	source, err := slashed(s.platform.OS, m.Source)
	if err != nil {
		return nil, err
	}
	source = path.Join("/", source)
	tree := llb.Scratch()
	switch {
	case from != nil:
		tree = from.state
	case m.Type == instruction.MountBind:
		b.context.need(source)
		tree = b.context.state
	}
	var opts []llb.MountOption
	switch m.Type {
	case instruction.MountTmpfs:
		return llb.AddMount(target, llb.Scratch(), llb.Tmpfs(m.Size)), nil
	case instruction.MountCache:
		opts = append(opts, b.cacheOption(target, m))
		if from == nil && (m.Mode != nil || m.UID != nil || m.GID != nil) {
			tree = cacheRoot(tree, m)
			opts = append(opts, llb.SourcePath(cacheRootDir))
		}
	default:
		if !m.ReadOnly {
			opts = append(opts, llb.ForceNoOutput())
		}
	}
	if m.ReadOnly {
		opts = append(opts, llb.Readonly())
	}
	if source != "/" {
		opts = append(opts, llb.SourcePath(source))
	}
	return llb.AddMount(target, tree, opts...), nil
}

// cacheOption makes a mount a cache. The id is that of the flag or the target, in the namespace.
func (b *Build) cacheOption(target string, m *instruction.Mount) llb.MountOption {
	id := m.ID
	if id == "" {
		id = target
	}
	sharing := llb.CacheShared
	switch m.Sharing {
	case instruction.SharingPrivate:
		sharing = llb.CachePrivate
	case instruction.SharingLocked:
		sharing = llb.CacheLocked
	}
	return llb.PersistentCache(b.opt.CacheNamespace+"/"+id, sharing)
}

// cacheRootDir is the directory that a cache with an owner or a mode starts with.
const cacheRootDir = "/cache"

func cacheRoot(tree llb.State, m *instruction.Mount) llb.State {
	return tree.File(
		llb.Mkdir(cacheRootDir, fileMode(m.Mode, 0o755), llb.WithOwner(llb.OwnerID(id(m.UID), id(m.GID)))),
		internalName("setting cache mount permissions"),
	)
}

func id(v *uint64) uint32 {
	if v == nil {
		return 0
	}
	return uint32(*v)
}

func fileMode(v *uint64, def fs.FileMode) fs.FileMode {
	if v == nil {
		return def
	}
	return fs.FileMode(*v)
}

func secretMount(s *stage, m *instruction.Mount) llb.RunOption {
	opts := []llb.SecretOption{
		llb.SecretID(m.ID),
		llb.SecretFile(llb.FileMeta{UID: int(id(m.UID)), GID: int(id(m.GID)), Mode: fileMode(m.Mode, 0o400)}),
	}
	if !m.Required {
		opts = append(opts, llb.SecretOptional())
	}
	target := m.Target
	switch {
	case target == "" && m.Env != nil:
		return llb.AddSecretEnv(*m.Env, opts...)
	case target == "":
		target = path.Join("/run/secrets", path.Base(m.ID))
	case !path.IsAbs(target):
		target = s.mountTarget(target)
	}
	if m.Env != nil {
		opts = append(opts, llb.SecretAsEnv(*m.Env))
	}
	return llb.AddSecret(target, opts...)
}

func sshMount(s *stage, m *instruction.Mount) llb.RunOption {
	opts := []llb.SSHOption{
		llb.SSHID(m.ID),
		llb.SSHFile(llb.FileMeta{UID: int(id(m.UID)), GID: int(id(m.GID)), Mode: fileMode(m.Mode, 0o600)}),
	}
	if m.Target != "" {
		target := m.Target
		if !path.IsAbs(target) {
			target = s.mountTarget(target)
		}
		opts = append(opts, llb.SSHTarget(target))
	}
	if !m.Required {
		opts = append(opts, llb.SSHOptional())
	}
	return llb.AddSSHSocket(opts...)
}
