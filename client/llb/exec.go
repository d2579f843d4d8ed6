package llb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// ExecState is the root of a process after its run, and the door to its mounts.
type ExecState struct {
	State
	before State
	op     *execOp
}

func newExecState(before State, op *execOp) ExecState {
	e := ExecState{before: before, op: op}
	if op.info.readonlyRoot {
		e.State = before
	} else {
		e.State = before.withEdge(op, 0)
	}
	return e
}

// Root returns the root of the process after its run, with the settings from before it.
func (e ExecState) Root() State { return e.State }

// AddMount returns the same process with one more mount.
func (e ExecState) AddMount(target string, source State, opts ...MountOption) ExecState {
	info := e.op.info
	info.addMount(target, source, opts)
	return newExecState(e.before, newExecOp(info))
}

// GetMount returns the tree that was mounted at target after the run. Of a read-only mount that
// is the tree itself; of one that keeps nothing, Marshal returns an error.
func (e ExecState) GetMount(target string) State {
	if target == "/" {
		return e.State
	}
	for _, m := range slices.Backward(e.op.info.mounts) {
		if m.target != target {
			continue
		}
		switch {
		case m.output != pb.NoOutput:
			return m.source.withEdge(e.op, m.output)
		case m.readonly && m.cache == nil && m.tmpfs == nil:
			return m.source
		}
		return failed(fmt.Errorf("mount %s keeps no output", target))
	}
	return failed(fmt.Errorf("no mount %s", target))
}

// execOp runs a process. Its mounts are sorted and their outputs numbered.
type execOp struct{ info runInfo }

func newExecOp(info runInfo) *execOp {
	info.mounts = slices.Clone(info.mounts)
	slices.SortStableFunc(info.mounts, func(a, b mount) int { return cmp.Compare(a.target, b.target) })
	next := int64(1)
	if info.readonlyRoot {
		next = 0
	}
	for i := range info.mounts {
		m := &info.mounts[i]
		m.output = pb.NoOutput
		if !m.noOutput && !m.readonly && m.cache == nil && m.tmpfs == nil {
			m.output = next
			next++
		}
	}
	return &execOp{info}
}

func (o *execOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	info := &o.info
	if info.err != nil {
		return nil, info.err
	}
	if len(info.args) == 0 {
		return nil, errors.New("arguments are required")
	}
	base, err := r.resolve(ctx, info.base)
	if err != nil {
		return nil, err
	}
	root := mount{target: "/", source: base, readonly: info.readonlyRoot}
	if root.readonly {
		root.output = pb.NoOutput
	}
	mounts := appendCopy([]mount{root}, info.mounts...)
	p := &plan{}
	for i := range mounts {
		m := &mounts[i]
		if i > 0 && m.target == "/" {
			return nil, errors.New("mount /: the root of a process is the State that it runs in")
		}
		if m.source, err = r.resolve(ctx, m.source); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
		if m.source.edge.vertex == nil {
			continue
		}
		if m.tmpfs != nil {
			return nil, fmt.Errorf("tmpfs mount %s: a tree to mount was given", m.target)
		}
		p.inputs = append(p.inputs, m.source.edge)
	}
	p.build = func(in []*pb.Input) (*content, error) {
		exec := &pb.ExecOp{
			Meta:       info.meta(&base.settings),
			Network:    base.settings.network,
			Security:   base.settings.security,
			CdiDevices: info.devices,
		}
		var inputs inputSet
		for i := range mounts {
			index := pb.NoInput
			if mounts[i].source.edge.vertex != nil {
				index, in = inputs.add(in[0]), in[1:]
			}
			exec.Mounts = append(exec.Mounts, mounts[i].message(index))
		}
		info.addSecrets(exec)
		info.addSSH(exec)
		op := &pb.Op{
			Inputs:      inputs.list,
			Op:          &pb.Op_Exec{Exec: exec},
			Platform:    r.opPlatform(info.constraints.platform, base.settings.platform),
			Constraints: r.workerConstraints(&info.constraints),
		}
		return encode(op, &info.constraints, execCaps(exec))
	}
	return p, nil
}

func (r *runInfo) meta(s *settings) *pb.Meta {
	env := s.env
	if len(r.sshSockets) > 0 {
		if _, ok := env.get("SSH_AUTH_SOCK"); !ok {
			env = env.add("SSH_AUTH_SOCK", r.sshSockets[0].target)
		}
	}
	return &pb.Meta{
		Args:                      r.args,
		Env:                       env.list(),
		Cwd:                       absolute(s.dir, ""),
		User:                      s.user,
		ProxyEnv:                  r.proxy,
		ExtraHosts:                s.extraHosts,
		Hostname:                  s.hostname,
		Ulimit:                    s.ulimits,
		CgroupParent:              s.cgroupParent,
		RemoveMountStubsRecursive: r.removeStubs,
		ValidExitCodes:            s.exitCodes,
	}
}

func (m *mount) message(input int64) *pb.Mount {
	msg := &pb.Mount{
		Input:        input,
		Selector:     m.selector,
		Dest:         m.target,
		Output:       m.output,
		Readonly:     m.readonly,
		ContentCache: m.contentCache,
	}
	switch {
	case m.cache != nil:
		msg.MountType, msg.CacheOpt = pb.MountType_CACHE, m.cache
	case m.tmpfs != nil:
		msg.MountType, msg.TmpfsOpt = pb.MountType_TMPFS, m.tmpfs
	}
	return msg
}

// addSecrets leaves the output of the mounts at 0, as all builders do: it is part of the
// identity of an op.
func (r *runInfo) addSecrets(exec *pb.ExecOp) {
	for _, s := range r.secrets {
		if s.env != "" {
			exec.Secretenv = append(exec.Secretenv, &pb.SecretEnv{ID: s.id, Name: s.env, Optional: s.optional})
		}
		if s.target != "" {
			exec.Mounts = append(exec.Mounts, &pb.Mount{
				Input:     pb.NoInput,
				Dest:      s.target,
				MountType: pb.MountType_SECRET,
				SecretOpt: &pb.SecretOpt{
					ID:       s.id,
					Uid:      uint32(s.file.UID),
					Gid:      uint32(s.file.GID),
					Mode:     uint32(s.file.Mode.Perm()),
					Optional: s.optional,
				},
			})
		}
	}
}

// addSSH leaves outputs at 0 for the reason that addSecrets does.
func (r *runInfo) addSSH(exec *pb.ExecOp) {
	for _, s := range r.sshSockets {
		exec.Mounts = append(exec.Mounts, &pb.Mount{
			Input:     pb.NoInput,
			Dest:      s.target,
			MountType: pb.MountType_SSH,
			SSHOpt: &pb.SSHOpt{
				ID:       s.id,
				Uid:      uint32(s.file.UID),
				Gid:      uint32(s.file.GID),
				Mode:     uint32(s.file.Mode.Perm()),
				Optional: s.optional,
			},
		})
	}
}

// execCaps returns the capabilities that a message takes.
func execCaps(exec *pb.ExecOp) []string {
	caps := []string{pb.CapExecMetaBase, pb.CapExecMetaSetsDefaultPath}
	add := func(use bool, id ...string) {
		if use {
			caps = append(caps, id...)
		}
	}
	add(exec.Meta.ProxyEnv != nil, pb.CapExecMetaProxyEnv)
	add(len(exec.Meta.Ulimit) > 0, pb.CapExecMetaUlimit)
	add(exec.Meta.CgroupParent != "", pb.CapExecMetaCgroupParent)
	add(len(exec.Meta.ValidExitCodes) > 0, pb.CapExecValidExitCode)
	add(exec.Network != pb.NetMode_UNSET, pb.CapExecMetaNetwork)
	add(exec.Security != pb.SecurityMode_SANDBOX, pb.CapExecMetaSecurity)
	add(len(exec.CdiDevices) > 0, pb.CapExecMetaCDI)
	add(len(exec.Secretenv) > 0, pb.CapExecSecretEnv)
	for _, m := range exec.Mounts {
		add(m.Selector != "", pb.CapExecMountSelector)
		add(m.ContentCache != pb.MountContentCache_DEFAULT, pb.CapExecMountCacheContent)
		switch m.MountType {
		case pb.MountType_CACHE:
			add(true, pb.CapExecMountCache, pb.CapExecMountCacheSharing)
		case pb.MountType_TMPFS:
			add(true, pb.CapExecMountTmpfs)
			add(m.TmpfsOpt.Size > 0, pb.CapExecMountTmpfsSize)
		case pb.MountType_SECRET:
			add(true, pb.CapExecMountSecret)
		case pb.MountType_SSH:
			add(true, pb.CapExecMountSSH)
		default:
			add(m.Input != pb.NoInput, pb.CapExecMountBind)
		}
	}
	return caps
}
