package op

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/worker"
)

// RunProgram runs the program of a frontend in root, which stays the caller's. It takes no slot:
// the program waits for steps that need one. What it says on standard error is a vertex of sink,
// which begins with the first word.
func (f *Factory) RunProgram(ctx context.Context, root *cache.Ref, acc cache.Access, sink event.Sink, p frontend.Program) error {
	if root == nil {
		return errors.New("the tree of the frontend is empty")
	}
	tree, err := root.Mount(ctx, false, acc)
	if err != nil {
		return err
	}
	c := worker.Container{
		Root:         worker.Mount{Source: tree, Dest: "/"},
		CgroupParent: f.worker.CgroupParent,
	}
	if p.NoNetwork {
		c.Network = pb.NetMode_NONE
	}
	if p.MaxMemory > 0 {
		// Without a limit of its own, swap would double what is allowed.
		c.Resources = &pb.LinuxResources{Memory: p.MaxMemory, MemorySwap: p.MaxMemory}
	}
	for _, file := range slices.Sorted(maps.Keys(p.Files)) {
		c.Mounts = append(c.Mounts, worker.Mount{
			// Nothing about it is secret: this is how a file in memory is mounted.
			Source:   worker.SecretMount(f.worker.SecretDir, worker.Secret{Data: p.Files[file], Mode: 0o444}),
			Dest:     path.Clean(file),
			Readonly: true,
		})
	}
	out := &programOutput{name: p.Name, sink: sink, limits: f.limits, copy: p.Stderr}
	err = f.worker.Runtime.Run(ctx, c, worker.Process{
		Args: p.Args, Env: withPath(p.Env), Cwd: p.Cwd,
		Stdin: p.Stdin, Stdout: p.Stdout, Stderr: out,
	}, nil)
	out.close(err)
	return err
}

func withPath(env []string) []string {
	if hasVariable(env, "PATH") {
		return env
	}
	return append(slices.Clone(env), "PATH="+defaultPath)
}

// programOutput shows what a program says.
type programOutput struct {
	name   string
	sink   event.Sink
	limits LogLimits
	copy   io.Writer // may be nil

	begin sync.Once
	logs  *logs // nil until something was said
	done  func(error) error
}

// Write never fails. It is not called concurrently.
func (o *programOutput) Write(p []byte) (int, error) {
	o.begin.Do(func() {
		// A program may run several times in a build.
		scope := event.NewScope(o.sink, digest.FromString("frontend "+strings.ToLower(rand.Text())))
		o.done = scope.Start("frontend "+o.name, nil)
		o.logs = newLogs(scope, o.limits)
	})
	o.logs.write(event.Stderr, p)
	if o.copy != nil {
		_, _ = o.copy.Write(p)
	}
	return len(p), nil
}

// close ends the vertex, if there is one. It is called once nothing is written any more.
func (o *programOutput) close(err error) {
	if o.logs == nil {
		return
	}
	o.logs.close(err != nil)
	_ = o.done(err)
}
