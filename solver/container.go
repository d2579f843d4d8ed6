package solver

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/platforms"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/solver/op"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/browse"
)

// Bounds of what the frontends of one build may have at a time.
const (
	maxContainers = 100
	maxProcesses  = 200
	// maxMounts is for one container: the kernel has a bound for all mounts of the machine.
	maxMounts = 250
)

// containers are those of one job that were not released yet.
type containers struct {
	mu     sync.Mutex
	closed bool
	// count includes those on their way, which are not in live yet.
	count     int
	live      map[*container]struct{}
	processes int
}

// reserve counts a container that is to be made.
func (cs *containers) reserve() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return errFrontendEnded
	}
	if cs.count >= maxContainers {
		return status.New(codes.ResourceExhausted, fmt.Sprintf("a build has at most %d containers at a time", maxContainers))
	}
	cs.count++
	return nil
}

var errFrontendEnded = status.New(codes.FailedPrecondition, "the frontend of the build has ended")

// add takes a container that was counted. It reports false if it comes too late.
func (cs *containers) add(c *container) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return false
	}
	if cs.live == nil {
		cs.live = map[*container]struct{}{}
	}
	cs.live[c] = struct{}{}
	return true
}

// forget ends what reserve began.
func (cs *containers) forget(c *container) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.count--
	delete(cs.live, c)
}

// enter counts a process that is to be started.
func (cs *containers) enter() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.processes >= maxProcesses {
		return status.New(codes.ResourceExhausted, fmt.Sprintf("a build has at most %d processes in containers at a time", maxProcesses))
	}
	cs.processes++
	return nil
}

// leave ends what enter began.
func (cs *containers) leave() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.processes--
}

// close ends all containers and lets none be made any more.
func (cs *containers) close() error {
	cs.mu.Lock()
	cs.closed = true
	var wg sync.WaitGroup
	errs := make([]error, 0, len(cs.live))
	var mu sync.Mutex
	for c := range cs.live {
		wg.Go(func() {
			err := c.c.Release()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	cs.live = nil
	cs.mu.Unlock()
	wg.Wait()
	return errors.Join(errs...)
}

// NewContainer makes a container of trees of the build.
func (b *bridge) NewContainer(ctx context.Context, req gateway.NewContainerRequest) (_ gateway.Container, err error) {
	j := b.job
	if err := j.grants.Check(req.NetMode, pb.SecurityMode_SANDBOX); err != nil {
		return nil, err
	}
	if err := j.checkContainer(req); err != nil {
		return nil, err
	}
	spec := op.ContainerSpec{
		Network: req.NetMode, Hostname: req.Hostname, ExtraHosts: req.ExtraHosts,
		Sessions: j.sessions, Access: cache.Access{Sessions: j.sessions, Blobs: j.sched},
	}
	edges, failed, err := j.containerMounts(req.Mounts, &spec)
	if err != nil {
		return nil, err
	}
	if err := j.containers.reserve(); err != nil {
		return nil, err
	}
	ctr := &container{job: j}
	defer func() {
		if err != nil {
			j.containers.forget(ctr)
		}
	}()
	left, release, err := openTrees(ctx, failed)
	if err != nil {
		return nil, err
	}
	defer release()
	err = j.sched.Use(ctx, edges, func(results []schedule.Result) (err error) {
		spec.Trees = slices.Clone(left)
		for _, r := range results {
			spec.Trees = append(spec.Trees, op.Ref(r))
		}
		ctr.c, err = j.solver.ops.NewContainer(ctx, j.ctx, spec)
		return err
	})
	if err != nil {
		return nil, j.failures.tell(err)
	}
	if !j.containers.add(ctr) {
		return nil, errors.Join(errFrontendEnded, ctr.c.Release())
	}
	return ctr, nil
}

// checkContainer refuses what no container can be.
func (j *job) checkContainer(req gateway.NewContainerRequest) error {
	if p := req.Platform; p != nil {
		spec := platforms.Normalize(p.Spec())
		if own := j.solver.platform().OS; spec.OS != "" && spec.OS != own {
			return status.New(codes.InvalidArgument, fmt.Sprintf("platform %s: containers are for %s only", platforms.Format(spec), own))
		}
	}
	for _, h := range req.ExtraHosts {
		if h == nil || h.Host == "" {
			return status.New(codes.InvalidArgument, "invalid extra host without a name")
		}
	}
	return nil
}

// containerMounts puts the mounts into spec and returns their trees: first those that failed steps
// left, then those of references.
func (j *job) containerMounts(mounts []gateway.Mount, spec *op.ContainerSpec) (edges []schedule.Edge, failed []*op.FailedTree, err error) {
	if len(mounts) > maxMounts {
		return nil, nil, status.New(codes.InvalidArgument, fmt.Sprintf("a container has at most %d mounts", maxMounts))
	}
	root := false
	var ofReferences []*pb.Mount
	for _, m := range mounts {
		msg := &pb.Mount{
			Input: -1, Output: -1, Dest: m.Dest, Selector: m.Selector, Readonly: m.Readonly, MountType: m.MountType,
			TmpfsOpt: m.TmpfsOpt, CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		}
		if m.Dest == "/" {
			if m.MountType != pb.MountType_BIND {
				return nil, nil, status.New(codes.InvalidArgument, fmt.Sprintf("invalid mount type %s for /", m.MountType))
			}
			root = true
		}
		switch {
		case m.ResultID != "":
			tree, err := j.failures.find(m.ResultID)
			if err != nil {
				return nil, nil, err
			}
			msg.Input = int64(len(failed))
			failed = append(failed, tree)
		case m.Ref != nil:
			ref, ok := m.Ref.(*reference)
			if !ok || ref.job != j {
				return nil, nil, status.New(codes.InvalidArgument, "reference of another build")
			}
			msg.Input = int64(len(edges))
			ofReferences = append(ofReferences, msg)
			edges = append(edges, ref.edge)
		}
		spec.Mounts = append(spec.Mounts, msg)
	}
	if !root {
		return nil, nil, status.New(codes.InvalidArgument, "root mount required")
	}
	for _, m := range ofReferences {
		m.Input += int64(len(failed))
	}
	return edges, failed, nil
}

// container is a container of a frontend.
type container struct {
	job *job
	c   *op.Container

	mu       sync.Mutex
	released bool
}

// Start starts a process.
func (c *container) Start(ctx context.Context, req gateway.StartRequest) (gateway.Process, error) {
	if err := c.job.grants.Check(pb.NetMode_UNSET, req.SecurityMode); err != nil {
		closeStreams(req)
		return nil, err
	}
	if err := c.job.containers.enter(); err != nil {
		closeStreams(req)
		return nil, err
	}
	p := &process{
		resize: make(chan worker.WindowSize), signal: make(chan syscall.Signal),
		started: make(chan struct{}), done: make(chan struct{}),
	}
	spec := op.ProcessSpec{
		Process: worker.Process{
			Args: req.Args, Env: req.Env, User: req.User, Cwd: req.Cwd, Tty: req.Tty, Resize: p.resize, Signal: p.signal,
		},
		SecretEnv: req.SecretEnv, Security: req.SecurityMode, RemoveStubsRecursive: req.RemoveMountStubsRecursive,
	}
	// A nil stream must not become an interface that is not nil.
	if req.Stdin != nil {
		spec.Stdin = req.Stdin
	}
	if req.Stdout != nil {
		spec.Stdout = req.Stdout
	}
	if req.Stderr != nil {
		spec.Stderr = req.Stderr
	}
	go func() {
		defer c.job.containers.leave()
		defer close(p.done)
		defer closeStreams(req)
		p.err = c.run(ctx, spec, p.started)
	}()
	select {
	case <-p.started:
	case <-p.done:
		var exit *status.ExitError
		if p.err != nil && !errors.As(p.err, &exit) {
			return nil, p.err
		}
	}
	return p, nil
}

// run runs a process. A panic ends it and nothing else.
func (c *container) run(ctx context.Context, spec op.ProcessSpec, started chan struct{}) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = status.WithStack(fmt.Errorf("container panicked: %v\n%s", r, debug.Stack()))
		}
	}()
	return c.c.Run(ctx, spec, started)
}

func closeStreams(req gateway.StartRequest) {
	if req.Stdin != nil {
		_ = req.Stdin.Close()
	}
	if req.Stdout != nil {
		_ = req.Stdout.Close()
	}
	if req.Stderr != nil {
		_ = req.Stderr.Close()
	}
}

// Release ends the container.
func (c *container) Release(context.Context) error {
	c.mu.Lock()
	first := !c.released
	c.released = true
	c.mu.Unlock()
	err := c.c.Release()
	if first {
		c.job.containers.forget(c)
	}
	return err
}

// mount reads the tree of a mount.
func (c *container) mount(index int) browser {
	return func(fn func(*browse.Tree) error) error {
		ok, err := c.c.Read(index, func(dir, part string) error { return withTree(dir, part, fn) })
		if !ok && err == nil {
			return status.New(codes.NotFound, fmt.Sprintf("the container has no tree mounted at index %d", index))
		}
		return err
	}
}

// ReadFile returns a file of a mount or a part of it.
func (c *container) ReadFile(_ context.Context, mount int, req gateway.ReadRequest) ([]byte, error) {
	return c.mount(mount).readFile(req)
}

// ReadDir lists a directory of a mount.
func (c *container) ReadDir(_ context.Context, mount int, req gateway.ReadDirRequest) ([]*types.Stat, error) {
	return c.mount(mount).readDir(req)
}

// StatFile describes a path of a mount.
func (c *container) StatFile(_ context.Context, mount int, path string) (*types.Stat, error) {
	return c.mount(mount).statFile(path)
}

// process is a process of a container.
type process struct {
	resize        chan worker.WindowSize
	signal        chan syscall.Signal
	started, done chan struct{}
	err           error // set before done is closed
}

// Wait waits for the end of the process and of its output.
func (p *process) Wait() error {
	<-p.done
	return p.err
}

// Resize sets the size of the terminal.
func (p *process) Resize(ctx context.Context, size gateway.WindowSize) error {
	return pass(ctx, p, p.resize, worker.WindowSize(size))
}

// Signal sends a signal.
func (p *process) Signal(ctx context.Context, sig syscall.Signal) error {
	return pass(ctx, p, p.signal, sig)
}

func pass[T any](ctx context.Context, p *process, to chan<- T, value T) error {
	select {
	case to <- value:
		return nil
	case <-p.done:
		return status.New(codes.FailedPrecondition, "process has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
