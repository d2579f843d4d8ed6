package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	gorunc "github.com/containerd/go-runc"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/spec"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// Run implements worker.Runtime. A container that the OCI runtime could not start has ended with
// the code of that runtime, which says why on the process's standard error. A container that was
// ended for want of memory is an ExitError whose text is that of ENOMEM. Errors do not name the
// process: see worker.ProcessError.
func (r *Runtime) Run(ctx context.Context, c worker.Container, p worker.Process, started chan<- struct{}) (err error) {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ct, err := r.register(c)
	if err != nil {
		return err
	}
	defer r.unregister(ct)
	defer ct.end()
	b, err := r.openBundle(ctx, ct, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return r.runBundle(ctx, ct, b, p, started)
}

func (r *Runtime) runBundle(ctx context.Context, ct *container, b *bundle, p worker.Process, started chan<- struct{}) error {
	cgroupsPath := r.cgroupsPath(ct)
	proc := &process{
		command: r.oci.commander(cgroupsPath, b.dir, ct.id, "run", "--bundle", b.dir),
		dir:     b.dir, request: p, stays: r.oci.stays,
	}
	oom, used := &oomWatch{follow: r.oci.stays}, ct.spec.Usage
	var meter func() *usage.Network
	if used != nil {
		meter = b.net.Meter()
	}
	defer oom.close()
	defer used.Stop()
	proc.onStart = func(pid int) {
		// Without a path of its own it may be in the cgroup of others too.
		if cgroupsPath != "" {
			c := cgroupOf(cgroupsPath, pid)
			oom.start(c)
			used.Start(usage.NewCgroup(cgroupRoot, c.v1, c.v2), meter)
			if r.oci.stays {
				used.Sample()
			}
		}
		// It holds the secrets of the environment, and has been read.
		_ = os.Remove(b.path(configFile))
		ct.bundle = b
		close(ct.running)
		if started != nil {
			close(started)
		}
	}
	proc.onEnd = func(ran bool) {
		oom.read()
		used.Stop()
		deleted := make(chan error, 1)
		b.onClosed(func() error { return <-deleted })
		if ran && !r.conf.NoProcessSandbox {
			// With the init the kernel has ended every process: nothing uses the mounts any more,
			// and they can go at the same time.
			go func() { deleted <- r.delete(ct, cgroupsPath, ran) }()
		} else {
			deleted <- r.delete(ct, cgroupsPath, ran)
		}
		ct.end()
	}
	code, err := proc.run(ctx)
	if err != nil {
		return err
	}
	return exitError(code, p.ValidExitCodes, oom.killed())
}

// delete removes the container from the OCI runtime, processes and cgroup with it. ran tells that it
// ended by itself, after which a runtime that stayed with it has removed it already.
func (r *Runtime) delete(ct *container, cgroup string, ran bool) error {
	if ran && r.oci.stays {
		return nil
	}
	// The request may be cancelled; what it left is removed all the same.
	ctx := context.Background()
	client := r.oci.client(cgroup)
	err := client.Delete(ctx, ct.id, &gorunc.DeleteOpts{Force: !ran})
	if err != nil && ran {
		err = client.Delete(ctx, ct.id, &gorunc.DeleteOpts{Force: true})
	}
	err = ignoreMissing(err, r.oci, ct.id)
	if r.conf.NoProcessSandbox && !r.oci.stays {
		err = errors.Join(err, reapOrphans())
	}
	return err
}

// ignoreMissing drops the error of a deletion if the container is gone from the state folder.
func ignoreMissing(err error, o *oci, id string) error {
	if err == nil || !o.exists(id) {
		return nil
	}
	return fmt.Errorf("delete container %s: %w", id, err)
}

// exitError returns what the end of a process with code means.
func exitError(code int, valid []int32, oom bool) error {
	if code < 0 {
		return &status.ExitError{Code: status.UnknownExitStatus}
	}
	if len(valid) == 0 {
		valid = []int32{0}
	}
	if slices.Contains(valid, int32(code)) {
		return nil
	}
	exit := &status.ExitError{Code: uint32(code)}
	if oom {
		exit.Err = syscall.ENOMEM
	}
	return exit
}

// Exec implements worker.Runtime. It waits until the container runs.
func (r *Runtime) Exec(ctx context.Context, id string, p worker.Process) error {
	ct, err := r.lookup(id)
	if err != nil {
		return err
	}
	select {
	case <-ct.running:
	case <-ct.done:
		return fmt.Errorf("container %s has ended", id)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// While it is counted the container's tree stays. Where it has ended meanwhile the runtime
	// refuses.
	if !ct.acquire() {
		return fmt.Errorf("container %s has ended", id)
	}
	defer ct.execs.Done()
	u, err := lookupUser(ct.bundle.root, p.User)
	if err != nil {
		return err
	}
	if err := makeCwd(ct.bundle.root, ct.bundle.all, spec.Cwd(p), u); err != nil {
		return err
	}
	container := ct.spec
	container.Security = p.Security
	s, err := spec.Process(r.host, container, p, u)
	if err != nil {
		return err
	}
	e, err := newExec(ct.bundle.dir, s)
	if err != nil {
		return err
	}
	defer func() { _ = e.remove() }() // the container's folder goes with all that is in it
	proc := &process{
		command: r.oci.commander(r.cgroupsPath(ct), e.dir, ct.id, "exec", "--process", e.path(processFile)),
		dir:     e.dir, request: p, stays: r.oci.stays,
		// It holds the secrets of the environment, and has been read.
		onStart: func(int) { _ = os.Remove(e.path(processFile)) },
	}
	code, err := proc.run(ctx)
	if err != nil {
		return err
	}
	return exitError(code, p.ValidExitCodes, false)
}
