package op

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/usage"
)

const execKind = "buildkit.exec.v0"

// execOp runs a process in a container.
type execOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.ExecOp
}

// Static is true.
func (o *execOp) Static() bool { return true }

// Identify describes the op by what changes its result: not by addresses of extra hosts, proxy
// settings or resource limits, and not by selectors, which are part of the inputs.
func (o *execOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	inputs, err := o.inputIdentities()
	if err != nil {
		return nil, err
	}
	op := proto.CloneOf(o.op)
	op.Meta.ProxyEnv = nil
	for _, h := range op.Meta.ExtraHosts {
		h.IP = ""
	}
	for _, m := range op.Mounts {
		m.Selector = ""
		m.ResultID = ""
		if m.MountType == pb.MountType_CACHE {
			normaliseCacheOpt(m)
		}
	}
	if len(op.Mounts) == 1 && isPlainRoot(op.Mounts[0]) {
		op.Mounts = nil
	}
	key, err := opKey(execKind, op, o.v.Op.Platform)
	if err != nil {
		return nil, err
	}
	return &schedule.Identity{Keys: []digest.Digest{key}, Inputs: inputs}, nil
}

// normaliseCacheOpt keeps the id of a cache mount, perhaps behind a namespace, only where it is
// the default one and shared: any other is a name that changes nothing about the result.
func normaliseCacheOpt(m *pb.Mount) {
	opt := m.CacheOpt
	if opt == nil {
		return
	}
	id := opt.ID
	if ns, dest, ok := strings.Cut(id, "/"); ok && ns != "" {
		id = "/" + dest
	}
	if id == m.Dest && opt.Sharing == pb.CacheSharingOpt_SHARED {
		return
	}
	m.CacheOpt = &pb.CacheOpt{}
}

func isPlainRoot(m *pb.Mount) bool {
	return proto.Equal(m, &pb.Mount{Input: 0, Dest: "/", Output: 0})
}

func (o *execOp) inputIdentities() ([]schedule.InputIdentity, error) {
	type use struct {
		// selectors are those of the mounts of an input, in the order of the mounts: which of the
		// mounts shows what matters.
		selectors        []string
		content, unknown bool
	}
	uses := make([]use, len(o.v.Inputs))
	for _, m := range o.op.Mounts {
		if m.Input < 0 || !showsInput(m) {
			continue
		}
		if m.Input >= int64(len(uses)) {
			return nil, fmt.Errorf("invalid mountinput %s", m)
		}
		u := &uses[m.Input]
		sel := path.Join("/", m.Selector)
		u.selectors = append(u.selectors, sel)
		var err error
		if u.content, err = contentDecides(m, sel); err != nil {
			return nil, err
		}
		// The rest of the tree becomes part of the result.
		u.unknown = u.unknown || m.Output >= 0 && sel != "/"
	}
	ids := make([]schedule.InputIdentity, len(uses))
	for i, u := range uses {
		if slices.ContainsFunc(u.selectors, func(sel string) bool { return sel != "/" }) {
			ids[i].Selector = strings.Join(u.selectors, "\x00")
		}
		if u.content && !u.unknown {
			ids[i].Content = o.f.digestPaths(i, u.selectors)
		}
	}
	return ids, nil
}

// showsInput tells whether a mount has anything of its input: clients may leave the number of mounts
// that have not as it is, the first.
func showsInput(m *pb.Mount) bool {
	return m.MountType == pb.MountType_BIND || m.MountType == pb.MountType_CACHE
}

// contentDecides tells whether the mount wants its input identified by the content that it shows; of
// several mounts of an input the last decides.
func contentDecides(m *pb.Mount, sel string) (bool, error) {
	safe := m.Output == -1 || m.Readonly || sel == "/"
	switch m.ContentCache {
	case pb.MountContentCache_OFF:
		return false, nil
	case pb.MountContentCache_ON:
		if !safe {
			return false, fmt.Errorf("invalid mount cache content %s", m)
		}
		return true, nil
	default:
		return safe && m.Dest != "/", nil
	}
}

// digestPaths returns the function that digests what is found at paths of an input, wherever that
// is.
func (f *Factory) digestPaths(input int, paths []string) func(context.Context, *schedule.Env, schedule.Result) (digest.Digest, error) {
	return func(ctx context.Context, env *schedule.Env, r schedule.Result) (digest.Digest, error) {
		h := digest.Canonical.Digester()
		for _, p := range paths {
			d, err := f.worker.Checksums.Digest(ctx, Ref(r), p, checksum.Opt{FollowLinks: true}, env.Access())
			if err != nil {
				return "", f.failContent(ctx, env, input, r, err)
			}
			_, _ = fmt.Fprintf(h.Hash(), "%s\x00", d)
		}
		return h.Digest(), nil
	}
}

// failContent returns the error of reading the content of an input, with the input.
func (f *Factory) failContent(ctx context.Context, env *schedule.Env, input int, r schedule.Result, err error) error {
	err = f.checksumError(r, err)
	failure := f.failure(ctx, env.Vertex, err)
	if failure == nil {
		return err
	}
	failure.Content = &input
	failure.Inputs = []*FailedTree{failure.hold(Ref(r))}
	return failure
}

// checksumError names the tree by its worker and its record there.
func (f *Factory) checksumError(r schedule.Result, err error) error {
	return fmt.Errorf("failed to calculate checksum of ref %s::%s: %w", f.worker.ID, r.ID(), err)
}

// Run runs the process.
func (o *execOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) (_ []schedule.Result, err error) {
	if err := o.checkDevices(env); err != nil {
		return nil, err
	}
	ms := o.mounts(env, inputs)
	defer func() {
		if rerr := ms.release(); err == nil {
			err = rerr
		}
	}()
	if err := ms.prepare(ctx); err != nil {
		return nil, err
	}
	secretEnv, err := o.f.secretEnv(ctx, env, o.op.Secretenv)
	if err != nil {
		return nil, err
	}
	release, err := o.f.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	logs := newLogs(env.Scope, o.f.limits)
	logs.foreign = o.v.Platform.Architecture != o.f.worker.Platforms.Default().Architecture
	container := o.container(ms, env)
	container.Usage = &usage.Step{}
	err = o.f.worker.Runtime.Run(ctx, container, o.process(env, secretEnv, logs), nil)
	logs.close(err != nil)
	env.Note(container.Usage)
	if err != nil {
		if logs.notExecutable() {
			err = o.explain(err)
		}
		return nil, o.fail(ctx, ms, ms.blameAgents(worker.ProcessError(o.op.Meta.Args, err)))
	}
	return ms.commit(ctx)
}

// fail returns err with the trees of the mounts as the process has left them. Those of mounts that
// are thrown away in any case are as they were.
func (o *execOp) fail(ctx context.Context, ms *mounts, err error) error {
	f := o.f.failure(ctx, o.v, err)
	if f == nil {
		return err
	}
	f.Inputs, f.Mounts = make([]*FailedTree, len(ms.want)), make([]*FailedTree, len(ms.want))
	for i, m := range ms.want {
		if in, err := ms.input(m); err == nil {
			f.Inputs[i] = f.hold(in)
		}
		tree := ms.trees[int(m.Output)]
		switch {
		case m.MountType == pb.MountType_BIND && m.Output >= 0 && tree != nil:
			delete(ms.trees, int(m.Output))
			f.Mounts[i] = f.take(tree)
		case m.MountType == pb.MountType_BIND:
			f.Mounts[i] = f.Inputs[i]
		}
	}
	return f
}

// checkDevices asks the builds that wait whether they may use the devices that are there now.
func (o *execOp) checkDevices(env *schedule.Env) error {
	if len(o.op.CdiDevices) == 0 {
		return nil
	}
	return env.Check(func(v any) error {
		if b, ok := v.(interface{ CheckOp(*pb.Op) error }); ok {
			return b.CheckOp(o.v.Op)
		}
		return nil
	})
}

// explain adds to the error of a process why programs of its platform cannot be executed, if so.
func (o *execOp) explain(err error) error {
	if why := o.f.worker.Platforms.Explain(o.v.Platform); why != nil {
		return fmt.Errorf("%w: %w", err, why)
	}
	return err
}

func (o *execOp) mounts(env *schedule.Env, inputs []schedule.Result) *mounts {
	refs := make([]*cache.Ref, len(inputs))
	for i, in := range inputs {
		refs[i] = Ref(in)
	}
	return &mounts{
		f: o.f, want: o.op.Mounts, inputs: refs, user: userOf(env), cwd: o.op.Meta.Cwd, fresh: o.v.IgnoreCache,
		// The command itself, whatever a frontend calls the step.
		what: giturl.Redact("exec " + strings.Join(o.op.Meta.Args, " ")),
	}
}

func (o *execOp) container(ms *mounts, env *schedule.Env) worker.Container {
	m := o.op.Meta
	c := worker.Container{
		Root:                 ms.root,
		Mounts:               ms.others,
		ReadonlyRoot:         ms.readonlyRoot,
		Hostname:             m.Hostname,
		ExtraHosts:           m.ExtraHosts,
		Network:              o.op.Network,
		Security:             o.op.Security,
		CgroupParent:         m.CgroupParent,
		Ulimits:              m.Ulimit,
		Resources:            env.Resources(),
		Devices:              o.op.CdiDevices,
		RemoveStubsRecursive: m.RemoveMountStubsRecursive,
	}
	if c.CgroupParent == "" {
		c.CgroupParent = o.f.worker.CgroupParent
	}
	if sock := o.f.worker.TraceSocket; sock != "" {
		c.Mounts = append(c.Mounts, worker.Mount{Source: worker.SocketMount(sock), Dest: traceSocket, Readonly: true})
	}
	return c
}

func (o *execOp) process(senv *schedule.Env, secretEnv []string, logs *logs) worker.Process {
	m := o.op.Meta
	env := slices.Concat(m.Env, proxyEnv(m.ProxyEnv), secretEnv)
	if !hasVariable(env, "PATH") {
		env = append(env, "PATH="+defaultPath)
	}
	if o.f.worker.TraceSocket != "" {
		env = append(env, traceEnv(senv, env)...)
	}
	return worker.Process{
		Args:           m.Args,
		Env:            env,
		User:           m.User,
		Cwd:            m.Cwd,
		Stdout:         logs.writer(event.Stdout),
		Stderr:         logs.writer(event.Stderr),
		ValidExitCodes: m.ValidExitCodes,
	}
}

// defaultPath is what a process finds programs by if the user said nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// proxyEnv returns the variables that tell programs of a proxy, in both spellings.
func proxyEnv(p *pb.ProxyEnv) []string {
	var env []string
	add := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+value, strings.ToLower(name)+"="+value)
		}
	}
	add("HTTP_PROXY", p.GetHttpProxy())
	add("HTTPS_PROXY", p.GetHttpsProxy())
	add("FTP_PROXY", p.GetFtpProxy())
	add("NO_PROXY", p.GetNoProxy())
	add("ALL_PROXY", p.GetAllProxy())
	return env
}

// secretEnv reads the secrets that are given as variables. An optional one that is missing is an
// empty variable.
func (f *Factory) secretEnv(ctx context.Context, sessions session.Group, wanted []*pb.SecretEnv) ([]string, error) {
	var out []string
	for _, s := range wanted {
		if s == nil || s.Name == "" {
			return nil, errors.New("secret environment variable without a name")
		}
		if s.ID == "" {
			return nil, fmt.Errorf("secret ID missing for %q environment variable", s.Name)
		}
		secret, err := secrets.Get(ctx, f.sessions, sessions, s.ID)
		if err != nil && s.Optional {
			err = secrets.Missing(err)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s.Name+"="+string(secret.Data))
	}
	return out, nil
}
