package op

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/ssh"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
)

// mounts are those of one container while it exists: prepared, committed if they are of an exec op
// that succeeded, then released.
type mounts struct {
	f    *Factory
	want []*pb.Mount
	// inputs are the trees that Input of a mount counts, nil for the empty one.
	inputs []*cache.Ref
	user   mountUser
	// what is what the container is for, as disk usage shows it; cwd is where relative destinations
	// begin.
	what, cwd string
	// fresh empties cache mounts that nobody uses.
	fresh bool
	// wrap, which may be nil, is called with the tree of the mount at an index and returns what is
	// mounted instead.
	wrap func(i int, tree snapshot.Mountable) snapshot.Mountable

	root         worker.Mount
	readonlyRoot bool
	others       []worker.Mount

	// trees are committed as outputs, by output index; kept are inputs that are outputs as well.
	trees map[int]*cache.MutableRef
	kept  map[int]*cache.Ref
	// agents are the sessions whose ssh agents are used.
	agents []agent
	// undo is run backwards by release.
	undo []func() error
}

// mountUser is what mounts use of who asks for them.
type mountUser struct {
	sessions session.Group
	access   cache.Access
	scope    event.Scope
}

// userOf returns what mounts use of those who wait for a vertex.
func userOf(env *schedule.Env) mountUser {
	return mountUser{sessions: env, access: env.Access(), scope: env.Scope}
}

// prepare makes every mount. Cache mounts come first, in order of their ids, so that two ops that
// lock the same ones can't wait for each other.
func (ms *mounts) prepare(ctx context.Context) error {
	ms.trees, ms.kept = map[int]*cache.MutableRef{}, map[int]*cache.Ref{}
	caches, err := ms.acquireCaches(ctx)
	if err != nil {
		return err
	}
	byDest := map[string]worker.Mount{}
	for i, m := range ms.want {
		wm, skip, err := ms.mount(ctx, i, m, caches)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		if t := m.MountType; ms.wrap != nil && (t == pb.MountType_BIND || t == pb.MountType_CACHE) {
			wm.Source = ms.wrap(i, wm.Source)
		}
		if m.Dest == "/" {
			ms.root = wm
			continue
		}
		byDest[wm.Dest] = wm
	}
	for _, wm := range byDest {
		ms.others = append(ms.others, wm)
	}
	slices.SortFunc(ms.others, func(a, b worker.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	return nil
}

// input returns the tree that a mount shows, nil for the empty one.
func (ms *mounts) input(m *pb.Mount) (*cache.Ref, error) {
	if m.Input < 0 {
		return nil, nil
	}
	if m.Input >= int64(len(ms.inputs)) {
		return nil, fmt.Errorf("missing input %d", m.Input)
	}
	return ms.inputs[m.Input], nil
}

func (ms *mounts) dest(m *pb.Mount) string {
	if path.IsAbs(m.Dest) {
		return path.Clean(m.Dest)
	}
	return path.Join("/", ms.cwd, m.Dest)
}

// mount makes one mount. skip is true for an optional one that is not to be had.
func (ms *mounts) mount(ctx context.Context, i int, m *pb.Mount, caches map[int]*cache.MutableRef) (wm worker.Mount, skip bool, err error) {
	wm = worker.Mount{Dest: ms.dest(m), Selector: m.Selector, Readonly: m.Readonly}
	if m.Dest == "/" {
		wm.Dest = "/"
	}
	switch m.MountType {
	case pb.MountType_BIND:
		wm.Source, err = ms.bind(ctx, m)
	case pb.MountType_CACHE:
		wm.Source, err = ms.cacheMount(ctx, m, caches[i])
	case pb.MountType_TMPFS:
		wm.Selector = ""
		wm.Source = worker.TmpfsMount(m.TmpfsOpt.GetSize())
	case pb.MountType_SECRET:
		wm.Selector = ""
		wm.Source, err = ms.secret(ctx, m)
	case pb.MountType_SSH:
		wm.Selector = ""
		wm.Source, err = ms.ssh(ctx, m)
	default:
		err = fmt.Errorf("mount type %s is not supported", m.MountType)
	}
	return wm, err == nil && wm.Source == nil, err
}

func (ms *mounts) bind(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	in, err := ms.input(m)
	if err != nil {
		return nil, err
	}
	root := m.Dest == "/"
	if m.Output >= 0 {
		if m.Readonly && !root && in != nil {
			ms.kept[int(m.Output)] = in.Clone()
			return in.Mount(ctx, true, ms.user.access)
		}
		tree, err := ms.newTree(ctx, in)
		if err != nil {
			return nil, err
		}
		ms.trees[int(m.Output)] = tree
		return tree.Mount(ctx, m.Readonly && !root)
	}
	switch {
	case root && m.Readonly:
		// The mount points that other mounts need are made in a private view.
		ms.readonlyRoot = true
	case m.Readonly && in != nil:
		return in.Mount(ctx, true, ms.user.access)
	}
	if in != nil {
		return in.Mount(ctx, false, ms.user.access)
	}
	tree, err := ms.newTree(ctx, nil)
	if err != nil {
		return nil, err
	}
	ms.undo = append(ms.undo, func() error { return tree.Release(context.WithoutCancel(ctx)) })
	return tree.Mount(ctx, false)
}

func (ms *mounts) newTree(ctx context.Context, parent *cache.Ref) (*cache.MutableRef, error) {
	opt := cache.NewOpt{Description: cache.Description{Text: "mount / from " + ms.what}}
	return ms.f.worker.Cache.New(ctx, parent, ms.user.access, opt)
}

func (ms *mounts) cacheMount(ctx context.Context, m *pb.Mount, tree *cache.MutableRef) (snapshot.Mountable, error) {
	if m.Output >= 0 {
		in, err := ms.input(m)
		if err != nil {
			return nil, err
		}
		if in != nil {
			in = in.Clone()
		}
		ms.kept[int(m.Output)] = in
	}
	return tree.Mount(ctx, m.Readonly)
}

// acquireCaches takes the cache mounts of the op, by the index of the mount.
func (ms *mounts) acquireCaches(ctx context.Context) (map[int]*cache.MutableRef, error) {
	type wanted struct {
		index int
		spec  cacheMountSpec
	}
	var all []wanted
	for i, m := range ms.want {
		if m.MountType != pb.MountType_CACHE {
			continue
		}
		if m.CacheOpt == nil {
			return nil, errors.New("missing cache mount options")
		}
		in, err := ms.input(m)
		if err != nil {
			return nil, err
		}
		all = append(all, wanted{i, cacheMountSpec{
			id: m.CacheOpt.ID, sharing: m.CacheOpt.Sharing, parent: in,
			describe: cacheMountText(m, ms.what),
		}})
	}
	slices.SortFunc(all, func(a, b wanted) int { return strings.Compare(a.spec.key(), b.spec.key()) })
	if ms.fresh {
		for _, w := range all {
			if err := ms.f.mounts.empty(ctx, w.spec.id); err != nil {
				return nil, err
			}
		}
	}
	trees := map[int]*cache.MutableRef{}
	var last *cacheMountUse
	for _, w := range all {
		// Mounts of one op with one key show one tree.
		if last == nil || last.spec.key() != w.spec.key() {
			use, err := ms.f.mounts.acquire(ctx, w.spec, ms.user)
			if err != nil {
				return nil, err
			}
			ms.undo = append(ms.undo, use.release)
			last = use
		}
		trees[w.index] = last.tree
	}
	return trees, nil
}

func cacheMountText(m *pb.Mount, what string) string {
	text := fmt.Sprintf("cached mount %s from %s", m.Dest, what)
	if m.CacheOpt.ID != "" && m.CacheOpt.ID != m.Dest {
		text += fmt.Sprintf(" with id %q", m.CacheOpt.ID)
	}
	return text
}

func (ms *mounts) secret(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	opt := m.SecretOpt
	if opt == nil {
		return nil, errors.New("invalid secret mount options")
	}
	if opt.ID == "" {
		return nil, errors.New("secret ID missing from mount options")
	}
	secret, err := secrets.Get(ctx, ms.f.sessions, ms.user.sessions, opt.ID)
	if err != nil {
		if opt.Optional {
			err = secrets.Missing(err)
		}
		return nil, err
	}
	return worker.SecretMount(ms.f.worker.SecretDir, worker.Secret{Data: secret.Data, UID: opt.Uid, GID: opt.Gid, Mode: opt.Mode}), nil
}

func (ms *mounts) ssh(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	opt := m.SSHOpt
	if opt == nil {
		return nil, errors.New("invalid ssh mount options")
	}
	var sock *ssh.Socket
	err := ms.f.sessions.Ask(ctx, ms.user.sessions, func(cctx context.Context, c *session.Caller) error {
		if err := ssh.CheckAgent(cctx, c, opt.ID); err != nil {
			return err
		}
		var err error
		// The socket outlives this call; it ends with the op, or with the session.
		sock, err = ssh.Forward(ctx, c, ssh.ForwardOpt{
			ID: opt.ID, UID: int(opt.Uid), GID: int(opt.Gid), Mode: fs.FileMode(opt.Mode & 0o777),
		})
		if err == nil {
			ms.agents = append(ms.agents, agent{c, sock})
		}
		return err
	})
	if err != nil {
		if opt.Optional && ctx.Err() == nil {
			err = ssh.Missing(err)
		}
		return nil, err
	}
	ms.undo = append(ms.undo, sock.Close)
	return worker.SocketMount(sock.Path), nil
}

// agent is a socket of a client that a container has.
type agent struct {
	client *session.Caller
	socket *ssh.Socket
}

// blameAgents returns the error of a process as that of the session whose agent it had, if that has
// gone or has failed: with another one it may do.
func (ms *mounts) blameAgents(err error) error {
	for _, a := range ms.agents {
		failure := a.client.Err()
		if failure == nil {
			failure = a.socket.Err()
		}
		if failure != nil {
			return a.client.Blame(fmt.Errorf("%w: %w", err, failure))
		}
	}
	return err
}

// commit turns what was written into the outputs.
func (ms *mounts) commit(ctx context.Context) (_ []schedule.Result, err error) {
	n := 0
	for i := range ms.trees {
		n = max(n, i+1)
	}
	for i := range ms.kept {
		n = max(n, i+1)
	}
	outs := make([]schedule.Result, n)
	defer func() {
		if err != nil {
			for _, o := range outs {
				if o != nil {
					o.Release()
				}
			}
		}
	}()
	for i := range outs {
		outs[i] = Tree{}
		if tree := ms.trees[i]; tree != nil {
			delete(ms.trees, i)
			ref, err := tree.Commit(ctx)
			if err != nil {
				return nil, fmt.Errorf("commit output %d: %w", i, err)
			}
			outs[i] = NewTree(ref)
		} else if ref := ms.kept[i]; ref != nil {
			delete(ms.kept, i)
			outs[i] = NewTree(ref)
		}
	}
	return outs, nil
}

// release lets go of everything that was not committed.
func (ms *mounts) release() error {
	ctx := context.Background()
	var errs []error
	for _, t := range ms.trees {
		errs = append(errs, t.Release(ctx))
	}
	for _, r := range ms.kept {
		if r != nil {
			errs = append(errs, r.Release(ctx))
		}
	}
	for i := len(ms.undo) - 1; i >= 0; i-- {
		errs = append(errs, ms.undo[i]())
	}
	ms.trees, ms.kept, ms.undo = nil, nil, nil
	return errors.Join(errs...)
}
