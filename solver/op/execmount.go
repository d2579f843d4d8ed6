package op

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/ssh"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
)

// execMounts are the mounts of one exec op while it runs: prepared, then committed, then released.
type execMounts struct {
	f      *Factory
	v      *graph.Vertex
	op     *pb.ExecOp
	env    *schedule.Env
	inputs []schedule.Result

	root         worker.Mount
	readonlyRoot bool
	mounts       []worker.Mount

	// trees are committed as outputs, by output index; kept are inputs that are outputs as well.
	trees map[int]*cache.MutableRef
	kept  map[int]*cache.Ref
	// undo is run backwards by release.
	undo []func() error
}

// prepare makes every mount. Cache mounts come first, in order of their ids, so that two ops that
// lock the same ones can't wait for each other.
func (ms *execMounts) prepare(ctx context.Context) error {
	ms.trees, ms.kept = map[int]*cache.MutableRef{}, map[int]*cache.Ref{}
	caches, err := ms.acquireCaches(ctx)
	if err != nil {
		return err
	}
	byDest := map[string]worker.Mount{}
	for i, m := range ms.op.Mounts {
		wm, skip, err := ms.mount(ctx, i, m, caches)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		if m.Dest == "/" {
			ms.root = wm
			continue
		}
		byDest[wm.Dest] = wm
	}
	for _, wm := range byDest {
		ms.mounts = append(ms.mounts, wm)
	}
	slices.SortFunc(ms.mounts, func(a, b worker.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	return nil
}

// input returns the tree that a mount shows, nil for the empty one.
func (ms *execMounts) input(m *pb.Mount) (*cache.Ref, error) {
	if m.Input < 0 {
		return nil, nil
	}
	if m.Input >= int64(len(ms.inputs)) {
		return nil, fmt.Errorf("missing input %d", m.Input)
	}
	return Ref(ms.inputs[m.Input]), nil
}

func (ms *execMounts) dest(m *pb.Mount) string {
	if path.IsAbs(m.Dest) {
		return path.Clean(m.Dest)
	}
	return path.Join("/", ms.op.Meta.Cwd, m.Dest)
}

// mount makes one mount. skip is true for an optional one that is not to be had.
func (ms *execMounts) mount(ctx context.Context, i int, m *pb.Mount, caches map[int]*cache.MutableRef) (wm worker.Mount, skip bool, err error) {
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

func (ms *execMounts) bind(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	in, err := ms.input(m)
	if err != nil {
		return nil, err
	}
	root := m.Dest == "/"
	if m.Output >= 0 {
		if m.Readonly && !root && in != nil {
			ms.kept[int(m.Output)] = in.Clone()
			return in.Mount(ctx, true, ms.env.Access())
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
		return in.Mount(ctx, true, ms.env.Access())
	}
	if in != nil {
		return in.Mount(ctx, false, ms.env.Access())
	}
	tree, err := ms.newTree(ctx, nil)
	if err != nil {
		return nil, err
	}
	ms.undo = append(ms.undo, func() error { return tree.Release(context.WithoutCancel(ctx)) })
	return tree.Mount(ctx, false)
}

func (ms *execMounts) newTree(ctx context.Context, parent *cache.Ref) (*cache.MutableRef, error) {
	opt := cache.NewOpt{Description: cache.Description{Text: ms.describe()}}
	return ms.f.worker.Cache.New(ctx, parent, ms.env.Access(), opt)
}

// describe is what du and the history of layers show: the command itself, whatever a frontend
// calls the step.
func (ms *execMounts) describe() string {
	return "mount / from exec " + strings.Join(ms.op.Meta.Args, " ")
}

func (ms *execMounts) cacheMount(ctx context.Context, m *pb.Mount, tree *cache.MutableRef) (snapshot.Mountable, error) {
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
func (ms *execMounts) acquireCaches(ctx context.Context) (map[int]*cache.MutableRef, error) {
	type wanted struct {
		index int
		spec  cacheMountSpec
	}
	var all []wanted
	for i, m := range ms.op.Mounts {
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
			describe: cacheMountText(m, ms.op.Meta.Args),
		}})
	}
	slices.SortFunc(all, func(a, b wanted) int { return strings.Compare(a.spec.key(), b.spec.key()) })
	if ms.v.IgnoreCache {
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
			use, err := ms.f.mounts.acquire(ctx, w.spec, ms.env)
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

func cacheMountText(m *pb.Mount, args []string) string {
	text := fmt.Sprintf("cached mount %s from exec %s", m.Dest, strings.Join(args, " "))
	if m.CacheOpt.ID != "" && m.CacheOpt.ID != m.Dest {
		text += fmt.Sprintf(" with id %q", m.CacheOpt.ID)
	}
	return text
}

func (ms *execMounts) secret(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	opt := m.SecretOpt
	if opt == nil {
		return nil, errors.New("invalid secret mount options")
	}
	if opt.ID == "" {
		return nil, errors.New("secret ID missing from mount options")
	}
	data, err := secrets.Get(ctx, ms.f.sessions, ms.env, opt.ID)
	if err != nil {
		if isSecretMissing(err) && opt.Optional {
			return nil, nil
		}
		return nil, &schedule.RequesterError{Err: err}
	}
	return worker.SecretMount(ms.f.worker.SecretDir, worker.Secret{Data: data, UID: opt.Uid, GID: opt.Gid, Mode: opt.Mode}), nil
}

func (ms *execMounts) ssh(ctx context.Context, m *pb.Mount) (snapshot.Mountable, error) {
	opt := m.SSHOpt
	if opt == nil {
		return nil, errors.New("invalid ssh mount options")
	}
	var sock string
	var release func() error
	err := ms.f.sessions.Any(ctx, ms.env, func(cctx context.Context, c *session.Caller) error {
		if err := ssh.CheckAgent(cctx, c, opt.ID); err != nil {
			return err
		}
		var err error
		// The socket outlives this call; it ends with the op, or with the session.
		sock, release, err = ssh.Forward(ctx, c, ssh.ForwardOpt{
			ID: opt.ID, UID: int(opt.Uid), GID: int(opt.Gid), Mode: fs.FileMode(opt.Mode & 0o777),
		})
		return err
	})
	if err != nil {
		if opt.Optional && ctx.Err() == nil && !errors.Is(err, session.ErrLost) {
			return nil, nil
		}
		return nil, &schedule.RequesterError{Err: err}
	}
	ms.undo = append(ms.undo, release)
	return worker.SocketMount(sock), nil
}

// commit turns what was written into the outputs.
func (ms *execMounts) commit(ctx context.Context) (_ []schedule.Result, err error) {
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
func (ms *execMounts) release() error {
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
