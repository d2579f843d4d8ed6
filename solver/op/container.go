package op

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker"
)

// ContainerSpec is what a frontend wants of a container. What it needs entitlements for has been
// checked.
type ContainerSpec struct {
	// Mounts are as in an exec op; none is an output. One is at /.
	Mounts []*pb.Mount
	// Trees are what Input of a mount counts, nil for the empty one. They stay the caller's.
	Trees      []*cache.Ref
	Network    pb.NetMode
	Hostname   string
	ExtraHosts []*pb.HostIP
	// Sessions serve secrets, ssh and credentials; Access is for trees that are lazy.
	Sessions session.Group
	Access   cache.Access
}

// Container is a container that a frontend drives: processes come and go in it, and its files can
// be read meanwhile. What was changed in its trees goes with it. Methods may be called concurrently.
type Container struct {
	f      *Factory
	spec   worker.Container
	user   mountUser
	mounts *mounts
	trees  []*cache.Ref
	// shown are the trees by the index of their mount, nil for what is no tree.
	shown []*shownTree

	life context.Context //nolint:containedctx // ends with the container; its calls have contexts of their own
	end  context.CancelCauseFunc

	mu       sync.Mutex // orders users.Add before users.Wait
	released bool
	// init is the process that the others depend on, nil as long as there is none.
	init *running
	// users are the processes, and those who read files.
	users   sync.WaitGroup
	cleanup func() error
}

// running is a process on its way: started is closed when it runs, ended when it does not any more.
type running struct{ started, ended chan struct{} }

var errReleased = status.New(codes.FailedPrecondition, "container is released")

// NewContainer makes the mounts of a container. It ends when life does, and has to be released.
func (f *Factory) NewContainer(ctx, life context.Context, spec ContainerSpec) (*Container, error) {
	c := &Container{f: f, user: mountUser{sessions: spec.Sessions, access: spec.Access, scope: event.NewScope(nil, "")}}
	c.trees = make([]*cache.Ref, len(spec.Trees))
	for i, t := range spec.Trees {
		c.trees[i] = t.Clone()
	}
	c.shown = make([]*shownTree, len(spec.Mounts))
	c.mounts = &mounts{
		f: f, want: spec.Mounts, inputs: c.trees, user: c.user, what: "container", cwd: "/",
		wrap: func(i int, tree snapshot.Mountable) snapshot.Mountable {
			c.shown[i] = &shownTree{tree: tree}
			return c.shown[i]
		},
	}
	c.life, c.end = context.WithCancelCause(life)
	c.cleanup = sync.OnceValue(c.clean)
	// What the mounts hold lives as long as the container: the call ends only the waiting.
	preparing, cancel := context.WithCancelCause(c.life)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	err := c.mounts.prepare(preparing)
	if err == nil {
		// Now, because whoever asks knows what to do about a tree that was lost.
		err = c.open()
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Release())
	}
	c.spec = worker.Container{
		// 25 characters, as the ids of other containers have.
		ID:           strings.ToLower(rand.Text()[:25]),
		Root:         c.mounts.root,
		Mounts:       c.mounts.others,
		ReadonlyRoot: c.mounts.readonlyRoot,
		Hostname:     spec.Hostname,
		ExtraHosts:   spec.ExtraHosts,
		Network:      spec.Network,
		CgroupParent: f.worker.CgroupParent,
	}
	return c, nil
}

func (c *Container) open() error {
	for _, tree := range c.shown {
		if tree == nil {
			continue
		}
		if _, err := tree.open(); err != nil {
			return err
		}
	}
	return nil
}

// ProcessSpec is what a frontend wants of a process, besides what the runtime is told.
type ProcessSpec struct {
	worker.Process
	SecretEnv            []*pb.SecretEnv
	Security             pb.SecurityMode
	RemoveStubsRecursive bool
}

// Run runs a process and waits for its end, as worker.Runtime does. started is closed when it runs.
// The first one is the init of the container; the others end with it, and after it nothing runs.
func (c *Container) Run(ctx context.Context, spec ProcessSpec, started chan struct{}) error {
	init, first, err := c.enter(started)
	if err != nil {
		return err
	}
	defer c.users.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })()

	secretEnv, err := c.f.secretEnv(ctx, c.user.sessions, spec.SecretEnv)
	if err == nil {
		spec.Env = slices.Concat(spec.Env, secretEnv)
		if !hasVariable(spec.Env, "PATH") {
			spec.Env = append(spec.Env, "PATH="+defaultPath)
		}
	}
	if first {
		return c.runInit(ctx, init, spec, err)
	}
	if err != nil {
		return err
	}
	select {
	case <-init.started:
	case <-init.ended:
		return errInitEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-init.ended:
		return errInitEnded
	default:
	}
	close(started)
	spec.Process.Security = spec.Security
	return c.f.worker.Runtime.Exec(ctx, c.spec.ID, spec.Process)
}

var errInitEnded = status.New(codes.FailedPrecondition, "the first process of the container has ended")

// enter counts a process. first tells that it is the init.
func (c *Container) enter(started chan struct{}) (init *running, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil, false, errReleased
	}
	c.users.Add(1)
	if c.init == nil {
		c.init = &running{started: started, ended: make(chan struct{})}
		return c.init, true, nil
	}
	return c.init, false, nil
}

// runInit runs the first process, unless err says that what it needs was not to be had.
func (c *Container) runInit(ctx context.Context, init *running, spec ProcessSpec, err error) error {
	defer close(init.ended)
	if err == nil {
		container := c.spec
		container.Security = spec.Security
		container.RemoveStubsRecursive = spec.RemoveStubsRecursive
		err = c.f.worker.Runtime.Run(ctx, container, spec.Process, init.started)
	}
	select {
	case <-init.started:
		return err
	default:
	}
	var exit *status.ExitError
	if err != nil && !errors.As(err, &exit) {
		// Nothing ran: the next process is the first.
		c.mu.Lock()
		c.init = nil
		c.mu.Unlock()
	}
	return err
}

// Read calls fn with the folder of the host on which the tree of a mount is, by the index of the
// mount, and the part of it that is mounted. ok is false if there is no such tree.
func (c *Container) Read(index int, fn func(dir, selector string) error) (ok bool, err error) {
	if index < 0 || index >= len(c.shown) || c.shown[index] == nil {
		return false, nil
	}
	c.mu.Lock()
	if c.released {
		c.mu.Unlock()
		return false, errReleased
	}
	c.users.Add(1)
	c.mu.Unlock()
	defer c.users.Done()
	dir, err := c.shown[index].open()
	if err != nil {
		return true, err
	}
	return true, fn(dir, c.mounts.want[index].Selector)
}

// Release ends all processes, waits for them, and gives up the trees. Calling it again does nothing
// but wait.
func (c *Container) Release() error {
	c.mu.Lock()
	c.released = true
	c.mu.Unlock()
	c.end(errReleased)
	c.users.Wait()
	return c.cleanup()
}

func (c *Container) clean() error {
	var errs []error
	for _, tree := range c.shown {
		if tree != nil {
			errs = append(errs, tree.close())
		}
	}
	errs = append(errs, c.mounts.release())
	for _, t := range c.trees {
		errs = append(errs, t.Release(context.Background()))
	}
	return errors.Join(errs...)
}

// shownTree is a tree that is mounted on the host once, when it is first needed: the stack of an
// overlay must not be mounted twice for writing.
type shownTree struct {
	tree snapshot.Mountable

	mu      sync.Mutex
	dir     string
	release func() error
}

// open returns the folder.
func (s *shownTree) open() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.release == nil {
		var err error
		if s.dir, s.release, err = snapshot.MountTemp(s.tree); err != nil {
			return "", err
		}
	}
	return s.dir, nil
}

// Mount implements snapshot.Mountable.
func (s *shownTree) Mount() ([]mount.Mount, func() error, error) {
	dir, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rw", "rbind"}}}, func() error { return nil }, nil
}

func (s *shownTree) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.release == nil {
		return nil
	}
	return s.release()
}
