// Command debug is a frontend that runs on the client's side: it builds two steps of which the second
// fails, and then looks into what the failed step has left, with a process in a container made of it.
//
//	go run ./examples/debug -addr unix:///run/buildkit/buildkitd.sock -image busybox
//
// The container is gone when the build is. With -tty the process has the terminal of this program, so that
// a shell in it is a debugger of builds:
//
//	go run ./examples/debug -tty sh
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/console"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
)

func main() {
	addr := flag.String("addr", "", "address of the daemon; empty is the usual one")
	image := flag.String("image", "busybox", "image with a shell")
	tty := flag.Bool("tty", false, "give the process a terminal")
	flag.Parse()
	command := flag.Args()
	if len(command) == 0 {
		command = []string{"sh", "-c", "cat /log; ls /work"}
	}
	if err := run(context.Background(), *addr, *image, *tty, command); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run builds what fails and runs command in what it has left.
func run(ctx context.Context, addr, image string, tty bool, command []string) error {
	c, err := client.New(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Build(ctx, client.SolveOpt{}, "buildkit", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		_, err := solve(ctx, c, image)
		var failed *status.SolveError
		if !errors.As(err, &failed) {
			return nil, err
		}
		fmt.Println("the step has failed:", err)
		// The build itself succeeds, without a result: the failure was what it is about.
		return nil, look(ctx, c, failed, tty, command)
	})
	return err
}

// solve asks for the steps and computes them.
func solve(ctx context.Context, c gateway.Client, image string) (*gateway.Result, error) {
	state := llb.Image(image).
		File(llb.Mkdir("/work", 0o755)).
		Run(llb.Shell("echo begun > /log; touch half-done; exit 42"), llb.Dir("/work")).Root()
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, gateway.SolveRequest{Definition: def, Evaluate: true})
}

// look runs a command in a container with the mounts of a failed step as the step has left them.
func look(ctx context.Context, c gateway.Client, failed *status.SolveError, tty bool, command []string) error {
	step := failed.Solve.GetOp().GetExec()
	var mounts []gateway.Mount
	for i, m := range step.GetMounts() {
		mounts = append(mounts, gateway.Mount{
			Dest: m.Dest, ResultID: failed.Solve.MountIDs[i], Selector: m.Selector, Readonly: m.Readonly,
			MountType: m.MountType, TmpfsOpt: m.TmpfsOpt, CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		})
	}
	ctr, err := c.NewContainer(ctx, gateway.NewContainerRequest{Mounts: mounts, NetMode: step.GetNetwork()})
	if err != nil {
		return err
	}
	req := gateway.StartRequest{
		Args: command, Env: step.GetMeta().GetEnv(), Cwd: step.GetMeta().GetCwd(), User: step.GetMeta().GetUser(),
		Tty: tty, Stdout: keepOpen{os.Stdout}, Stderr: keepOpen{os.Stderr},
	}
	if tty {
		req.Stdin = os.Stdin
	}
	process, err := ctr.Start(ctx, req)
	if err == nil && tty {
		var restore func()
		if restore, err = attach(ctx, process); err == nil {
			defer restore()
		}
	}
	if err == nil {
		err = process.Wait()
	}
	return errors.Join(err, ctr.Release(ctx))
}

// attach has keys passed on as they are typed, and the process's terminal as large as this program's.
func attach(ctx context.Context, process gateway.Process) (restore func(), err error) {
	terminal, err := console.ConsoleFromFile(os.Stdin)
	if err != nil {
		return nil, fmt.Errorf("-tty wants a terminal: %w", err)
	}
	if err := terminal.SetRaw(); err != nil {
		return nil, err
	}
	changes := make(chan os.Signal, 1)
	changes <- syscall.SIGWINCH
	signal.Notify(changes, syscall.SIGWINCH)
	go func() {
		for range changes {
			if size, err := terminal.Size(); err == nil {
				_ = process.Resize(ctx, gateway.WindowSize{Rows: uint32(size.Height), Cols: uint32(size.Width)}) // it may have ended
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(changes)
		_ = terminal.Reset() // it is as good as gone
	}, nil
}

// keepOpen is a writer that others do not close.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
