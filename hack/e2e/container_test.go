package e2e_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
)

// connectTo returns a client of the daemon.
func connectTo(tb testing.TB, d *harness.Daemon) *library.Client {
	tb.Helper()
	c, err := library.New(d.Addr)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// drive runs a frontend on this side that returns an empty result, and fails the test if the build
// fails.
func drive(tb testing.TB, c *library.Client, opt library.SolveOpt, frontend func(context.Context, gateway.Client)) {
	tb.Helper()
	require.NoError(tb, driveOnce(tb, c, opt, frontend))
}

// driveOnce is drive for builds that may fail.
func driveOnce(tb testing.TB, c *library.Client, opt library.SolveOpt, frontend func(context.Context, gateway.Client)) error {
	tb.Helper()
	_, err := c.Build(tb.Context(), opt, "buildctl", func(ctx context.Context, c gateway.Client) (_ *gateway.Result, err error) {
		err = errors.New("the frontend has failed the test")
		ended := make(chan struct{})
		// What fails a test ends its goroutine: the build is to be told.
		go func() {
			defer close(ended)
			frontend(ctx, c)
			err = nil
		}()
		<-ended
		return nil, err
	})
	return err
}

// treeOf returns a lazy reference of a state.
func treeOf(ctx context.Context, tb testing.TB, c gateway.Client, state llb.State) gateway.Reference {
	tb.Helper()
	res, err := c.Solve(ctx, gateway.SolveRequest{Definition: marshal(tb, state)})
	require.NoError(tb, err)
	ref, err := res.SingleRef()
	require.NoError(tb, err)
	return ref
}

// inBusybox returns a request for a container of busybox with more mounts.
func inBusybox(ctx context.Context, tb testing.TB, c gateway.Client, more ...gateway.Mount) gateway.NewContainerRequest {
	tb.Helper()
	root := gateway.Mount{Dest: "/", Ref: treeOf(ctx, tb, c, llb.Image("busybox"))}
	return gateway.NewContainerRequest{Mounts: append([]gateway.Mount{root}, more...)}
}

// open makes a container.
func open(ctx context.Context, tb testing.TB, c gateway.Client, req gateway.NewContainerRequest) gateway.Container {
	tb.Helper()
	ctr, err := c.NewContainer(ctx, req)
	require.NoError(tb, err)
	return ctr
}

// captured collects what a process writes.
type captured struct{ output }

func newCaptured() *captured   { return &captured{output{changed: make(chan struct{})}} }
func (*captured) Close() error { return nil }

// await returns when text was written.
func (c *captured) await(ctx context.Context, tb testing.TB, text string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	for {
		all, more := c.snapshot()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			tb.Fatalf("%q was not written: %q", text, all)
		}
	}
}

// script starts a shell script in a container.
func script(ctx context.Context, tb testing.TB, ctr gateway.Container, text string, change ...func(*gateway.StartRequest)) (gateway.Process, *captured) {
	tb.Helper()
	out := newCaptured()
	req := gateway.StartRequest{Args: []string{"sh", "-c", text}, Stdout: out, Stderr: out}
	for _, f := range change {
		f(&req)
	}
	p, err := ctr.Start(ctx, req)
	require.NoError(tb, err)
	return p, out
}

// sh runs a shell script in a container and returns what it writes.
func sh(ctx context.Context, tb testing.TB, ctr gateway.Container, text string, change ...func(*gateway.StartRequest)) string {
	tb.Helper()
	p, out := script(ctx, tb, ctr, text, change...)
	require.NoError(tb, p.Wait(), out)
	return out.String()
}

func requireExitCode(tb testing.TB, code uint32, err error) {
	tb.Helper()
	var exit *status.ExitError
	require.ErrorAs(tb, err, &exit)
	require.Equal(tb, code, exit.Code)
}

func TestContainersOfAFrontend(t *testing.T) {
	d := start(t, harness.DaemonOptions{Args: []string{"--allow-insecure-entitlement=network.host", "--allow-insecure-entitlement=security.insecure"}})
	client := connectTo(t, d)
	const secret = "tell-nobody"
	opt := library.SolveOpt{Session: []session.Attachable{secrets.NewProvider(secrets.Values{"s": []byte(secret)})}}
	for name, test := range map[string]func(context.Context, *testing.T, gateway.Client){
		"a process is what the request says": func(ctx context.Context, t *testing.T, c gateway.Client) {
			req := inBusybox(ctx, t, c)
			req.Hostname, req.NetMode = "box", pb.NetMode_NONE
			req.ExtraHosts = []*pb.HostIP{{Host: "elsewhere", IP: "1.2.3.4"}}
			ctr := open(ctx, t, c, req)
			text := `echo $A $S $PATH; pwd; id -u; hostname; grep elsewhere /etc/hosts; ls /sys/class/net; exit 3`
			p, out := script(ctx, t, ctr, text, func(r *gateway.StartRequest) {
				r.Env, r.Cwd, r.User = []string{"A=1"}, "/made/here", "nobody"
				r.SecretEnv = []*pb.SecretEnv{{ID: "s", Name: "S"}}
			})
			err := p.Wait()
			require.EqualError(t, err, "exit code: 3")
			requireExitCode(t, 3, err)
			lines := strings.Fields(out.String())
			require.Equal(t, []string{
				"1", secret, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"/made/here", "65534", "box", "1.2.3.4", "elsewhere", "lo",
			}, lines)
			require.NoError(t, ctr.Release(ctx))
			_, err = ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}})
			require.ErrorContains(t, err, "previously released or not created")
			require.Equal(t, codes.NotFound, status.Code(err))
		},
		"a process that cannot start says so": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			_, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}, User: "ghost"})
			require.EqualError(t, err, "unable to find user ghost: no matching entries in passwd file")
			_, err = ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}, SecretEnv: []*pb.SecretEnv{{ID: "none", Name: "S"}}})
			require.EqualError(t, err, "secret none: not found")
			_, err = ctr.Start(ctx, gateway.StartRequest{})
			require.ErrorContains(t, err, "has no args")
			out := newCaptured()
			p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/nosuch"}, Stderr: out})
			require.NoError(t, err)
			requireExitCode(t, 1, p.Wait())
			require.Contains(t, out.String(), "/nosuch")
			require.NoError(t, ctr.Release(ctx))
		},
		"mounts show their trees": func(ctx context.Context, t *testing.T, c gateway.Client) {
			data := treeOf(ctx, t, c, llb.Scratch().File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o644, []byte("data"))))
			mounts := []gateway.Mount{
				{Dest: "/ro", Ref: data, Readonly: true, Selector: "/d"},
				{Dest: "/rw", Ref: data},
				{Dest: "/empty"},
				{Dest: "/tmp", MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 1 << 20}},
				{Dest: "/cache", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "gateway"}},
				{Dest: "/secret", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s", Mode: 0o400}},
			}
			text := `cat /ro/f /rw/d/f /secret; ! touch /ro/x 2>/dev/null; echo w > /rw/w; echo e > /empty/e; echo c >> /cache/c; df /tmp | tail -1 | awk '{print $2}'`
			for round := range 2 {
				ctr := open(ctx, t, c, inBusybox(ctx, t, c, mounts...))
				require.Equal(t, "datadata"+secret+"1024\n", sh(ctx, t, ctr, text))
				for i, path := range map[int]string{1: "/f", 2: "/w", 3: "/e", 5: "/c"} {
					_, err := ctr.StatFile(ctx, i, path)
					require.NoError(t, err)
				}
				cached, err := ctr.ReadFile(ctx, 5, gateway.ReadRequest{Filename: "c"})
				require.NoError(t, err)
				require.Equal(t, strings.Repeat("c\n", round+1), string(cached), "a cache mount stays, the rest is new")
				for _, i := range []int{4, 6, 7} {
					_, err = ctr.StatFile(ctx, i, "/")
					require.Equal(t, codes.NotFound, status.Code(err))
				}
				require.NoError(t, ctr.Release(ctx))
			}
		},
		"files are read while processes run, and lead nowhere else": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			_, err := ctr.ReadFile(ctx, 0, gateway.ReadRequest{Filename: "/f"})
			require.ErrorContains(t, err, "open /f: no such file or directory")
			_, out := script(ctx, t, ctr, "echo 1 > /f; mkdir /d; touch /d/a.x /d/b.y; ln -s /../../f /l; ln -s /proc/1/root/etc /d/proc; echo up; sleep 1000")
			out.await(ctx, t, "up")
			data, err := ctr.ReadFile(ctx, 0, gateway.ReadRequest{Filename: "/l"})
			require.NoError(t, err)
			require.Equal(t, "1\n", string(data))
			entries, err := ctr.ReadDir(ctx, 0, gateway.ReadDirRequest{Path: "/d", IncludePattern: "*.x"})
			require.NoError(t, err)
			require.Len(t, entries, 1)
			require.Equal(t, "a.x", entries[0].Path)
			st, err := ctr.StatFile(ctx, 0, "/l")
			require.NoError(t, err)
			require.Equal(t, "/../../f", st.Linkname)
			_, err = ctr.ReadDir(ctx, 0, gateway.ReadDirRequest{Path: "/d/proc"})
			require.Error(t, err)
			require.NoError(t, ctr.Release(ctx))
		},
		"a terminal echoes, is resized, and ends its shell": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			terminal(ctx, t, ctr)
			require.NoError(t, ctr.Release(ctx))
		},
		"the end of the input is told": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			text := strings.Repeat("0123456789\n", 300000)
			got := sh(ctx, t, ctr, "cat; echo end", func(r *gateway.StartRequest) { r.Stdin = io.NopCloser(strings.NewReader(text)) })
			require.Len(t, got, len(text)+4)
			require.True(t, strings.HasSuffix(got, "\nend\n"))
			require.NoError(t, ctr.Release(ctx))
		},
		"signals arrive, and cancelling kills": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			first, up := script(ctx, t, ctr, "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")
			up.await(ctx, t, "up")
			p, out := script(ctx, t, ctr, "trap 'echo hup; exit 5' HUP; echo up; while :; do sleep 0.1; done")
			out.await(ctx, t, "up")
			require.NoError(t, p.Signal(ctx, syscall.SIGHUP))
			requireExitCode(t, 5, p.Wait())
			require.Equal(t, "up\nhup\n", out.String())

			cancelled, cancel := context.WithCancel(ctx)
			p, out = script(cancelled, t, ctr, "trap '' TERM HUP; echo up; sleep 1000")
			out.await(ctx, t, "up")
			cancel()
			require.ErrorIs(t, p.Wait(), context.Canceled)

			require.NoError(t, first.Signal(ctx, syscall.SIGTERM))
			requireExitCode(t, 9, first.Wait())
			require.NoError(t, ctr.Release(ctx))
		},
		"the end of the first process is that of the others": func(ctx context.Context, t *testing.T, c gateway.Client) {
			ctr := open(ctx, t, c, inBusybox(ctx, t, c))
			in, end := io.Pipe()
			first, up := script(ctx, t, ctr, "touch /shared; echo up; read x; exit 0", func(r *gateway.StartRequest) { r.Stdin = in })
			up.await(ctx, t, "up")
			require.Equal(t, "/shared\n", sh(ctx, t, ctr, "ls /shared"))
			other, out := script(ctx, t, ctr, "echo up; sleep 1000")
			out.await(ctx, t, "up")
			require.NoError(t, end.Close())
			require.NoError(t, first.Wait())
			require.Error(t, other.Wait())
			_, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}})
			require.EqualError(t, err, "the first process of the container has ended")
			require.NoError(t, ctr.Release(ctx))
		},
		"nothing is allowed that was not granted": func(ctx context.Context, t *testing.T, c gateway.Client) {
			req := inBusybox(ctx, t, c)
			ctr := open(ctx, t, c, req)
			_, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}, SecurityMode: pb.SecurityMode_INSECURE})
			require.EqualError(t, err, "security.insecure is not allowed")
			require.Equal(t, codes.PermissionDenied, status.Code(err))
			_, err = ctr.Start(ctx, gateway.StartRequest{Args: []string{"true"}, SecurityMode: 7})
			require.ErrorContains(t, err, "invalid security mode")
			require.NoError(t, ctr.Release(ctx))
			req.NetMode = pb.NetMode_HOST
			_, err = c.NewContainer(ctx, req)
			require.EqualError(t, err, "network.host is not allowed")
			require.Equal(t, codes.PermissionDenied, status.Code(err))
			req.NetMode = 9
			_, err = c.NewContainer(ctx, req)
			require.Equal(t, codes.InvalidArgument, status.Code(err))
		},
		"what is no container is refused": func(ctx context.Context, t *testing.T, c gateway.Client) {
			root := inBusybox(ctx, t, c).Mounts[0]
			for text, req := range map[string]gateway.NewContainerRequest{
				"root mount required":                                   {Mounts: []gateway.Mount{{Dest: "/x"}}},
				"return reference gone not found":                       {Mounts: []gateway.Mount{{Dest: "/", ResultID: "gone"}}},
				"invalid mount type TMPFS for /":                        {Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_TMPFS}}},
				"platform windows/amd64: containers are for linux only": {Mounts: []gateway.Mount{root}, Platform: &pb.Platform{OS: "windows", Architecture: "amd64"}},
				"missing cache mount options":                           {Mounts: []gateway.Mount{root, {Dest: "/c", MountType: pb.MountType_CACHE}}},
				"secret none: not found":                                {Mounts: []gateway.Mount{root, {Dest: "/s", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "none"}}}},
				"invalid extra host without a name":                     {Mounts: []gateway.Mount{root}, ExtraHosts: []*pb.HostIP{{IP: "1.2.3.4"}}},
			} {
				_, err := c.NewContainer(ctx, req)
				require.EqualError(t, err, text)
			}
			_, err := c.NewContainer(ctx, gateway.NewContainerRequest{Mounts: make([]gateway.Mount, 251)})
			require.EqualError(t, err, "a container has at most 250 mounts")
		},
	} {
		t.Run(name, func(t *testing.T) {
			drive(t, client, opt, func(ctx context.Context, c gateway.Client) { test(ctx, t, c) })
		})
	}
	t.Run("what was granted is allowed", func(t *testing.T) {
		granted := opt
		granted.AllowedEntitlements = []string{"network.host", "security.insecure"}
		drive(t, client, granted, func(ctx context.Context, c gateway.Client) {
			req := inBusybox(ctx, t, c)
			req.NetMode = pb.NetMode_HOST
			ctr := open(ctx, t, c, req)
			insecure := func(r *gateway.StartRequest) { r.SecurityMode = pb.SecurityMode_INSECURE }
			const caps = "grep CapEff /proc/self/status; grep -q NoNewPrivs /proc/self/status"
			_, up := script(ctx, t, ctr, caps+"; echo up; sleep 1000", insecure)
			up.await(ctx, t, "up")
			confined := sh(ctx, t, ctr, caps)
			require.NotContains(t, up.String(), confined, "a process has no more than it asks for")
			require.Contains(t, up.String(), sh(ctx, t, ctr, caps, insecure))
			require.NoError(t, ctr.Release(ctx))
		})
	})
	d.RequireIdle(t)
	require.NotContains(t, d.Logs(), secret)
}

// terminal holds a session with a shell in a terminal.
func terminal(ctx context.Context, tb testing.TB, ctr gateway.Container) {
	tb.Helper()
	in, keys := io.Pipe()
	out := newCaptured()
	p, err := ctr.Start(ctx, gateway.StartRequest{
		Args: []string{"sh"}, Env: []string{"PS1=$ "}, Tty: true, Stdin: in, Stdout: out,
	})
	require.NoError(tb, err)
	enter := func(text string) {
		tb.Helper()
		_, err := io.WriteString(keys, text)
		require.NoError(tb, err)
	}
	out.await(ctx, tb, "$ ")
	enter("echo a$((1+1))c\r")
	// The runtime sets up its terminals beside a shell that has begun: a line may end with two \r.
	out.await(ctx, tb, "echo a$((1+1))c\r") // typed
	out.await(ctx, tb, "a2c\r")
	require.NoError(tb, p.Resize(ctx, gateway.WindowSize{Rows: 17, Cols: 71}))
	// The size arrives beside the keys: the shell asks until it is there.
	enter("until [ \"$(stty size)\" = '17 71' ]; do sleep 0.1; done; echo re''sized\r")
	out.await(ctx, tb, "resized\r")
	enter("exit 4\r")
	requireExitCode(tb, 4, p.Wait())

	// A key ends the input of a terminal.
	in, keys = io.Pipe()
	out = newCaptured()
	p, err = ctr.Start(ctx, gateway.StartRequest{Args: []string{"cat"}, Tty: true, Stdin: in, Stdout: out})
	if status.Code(err) == codes.FailedPrecondition {
		return // the shell was the first process
	}
	require.NoError(tb, err)
	enter("x\r\x04")
	require.NoError(tb, p.Wait())
}

func TestTwentyTerminalsAtOnce(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	drive(t, connectTo(t, d), library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ctr := open(ctx, t, c, inBusybox(ctx, t, c))
				// Half of them beside a process that was there before.
				if i%2 == 0 {
					_, out := script(ctx, t, ctr, "echo up; sleep 1000")
					out.await(ctx, t, "up")
				}
				terminal(ctx, t, ctr)
				require.NoError(t, ctr.Release(ctx))
			})
		}
		wg.Wait()
	})
	d.RequireIdle(t)
}

// failed returns the record of the step that failed.
func failed(tb testing.TB, err error) *errdefspb.Solve {
	tb.Helper()
	var solve *status.SolveError
	require.ErrorAs(tb, err, &solve, "%v", err)
	return solve.Solve
}

func TestTheTreesOfAFailedStepCanBeLookedInto(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	client := connectTo(t, d)
	base := llb.Image("busybox")
	ls := func(ctx context.Context, t *testing.T, c gateway.Client, id string) string {
		t.Helper()
		ctr := open(ctx, t, c, inBusybox(ctx, t, c, gateway.Mount{Dest: "/look", ResultID: id}))
		defer func() { require.NoError(t, ctr.Release(ctx)) }()
		return sh(ctx, t, ctr, "cd /look; ls; touch mine")
	}
	t.Run("of a process", func(t *testing.T) {
		drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			run := base.Run(llb.Shell("echo state > /state; echo more > /out/more; echo c > /cache/c; exit 7"),
				llb.AddMount("/cache", llb.Scratch(), llb.PersistentCache("failed", llb.CacheShared)))
			run = run.AddMount("/out", llb.Scratch().File(llb.Mkfile("/seed", 0o644, nil)))
			ref := treeOf(ctx, t, c, run.Root())
			err := ref.Evaluate(ctx)
			require.ErrorContains(t, err, "exit code: 7")
			requireExitCode(t, 7, err)
			solve := failed(t, err)
			mounts := solve.GetOp().GetExec().GetMounts()
			require.Len(t, mounts, 3)
			require.Len(t, solve.MountIDs, 3)
			require.Len(t, solve.InputIDs, 3)
			again := failed(t, ref.Evaluate(ctx))
			require.Equal(t, solve.MountIDs, again.MountIDs, "the ids stay")
			// Once more, to see that nobody's changes are seen by others.
			for range 2 {
				for i, m := range mounts {
					switch m.Dest {
					case "/":
						require.Contains(t, ls(ctx, t, c, solve.MountIDs[i]), "state\n")
						require.NotContains(t, ls(ctx, t, c, solve.InputIDs[i]), "state\n")
					case "/out":
						require.Equal(t, "more\nseed\n", ls(ctx, t, c, solve.MountIDs[i]))
						require.Equal(t, "seed\n", ls(ctx, t, c, solve.InputIDs[i]))
					default:
						require.Empty(t, solve.MountIDs[i])
						require.Empty(t, solve.InputIDs[i])
					}
				}
			}
		})
	})
	t.Run("of a process, and work on in it", func(t *testing.T) {
		drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			run := base.Run(llb.Shell("echo state > /state; exit 7"), llb.Dir("/work"), llb.AddEnv("A", "b"))
			_, err := c.Solve(ctx, gateway.SolveRequest{Definition: marshal(t, run.Root()), Evaluate: true})
			solve := failed(t, err)
			meta := solve.GetOp().GetExec().GetMeta()
			ctr := open(ctx, t, c, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", ResultID: solve.MountIDs[0]}}})
			out := sh(ctx, t, ctr, "cat /state; pwd; echo $A", func(r *gateway.StartRequest) { r.Env, r.Cwd = meta.Env, meta.Cwd })
			require.Equal(t, "state\n/work\nb\n", out)
		})
	})
	t.Run("of a file action", func(t *testing.T) {
		drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			seed := llb.Scratch().File(llb.Mkfile("/seed", 0o644, nil))
			state := seed.File(llb.Mkdir("/made", 0o755).Mkfile("/nosuch/file", 0o644, nil))
			solve := failed(t, treeOf(ctx, t, c, state).Evaluate(ctx))
			require.EqualValues(t, 1, solve.GetFile().GetIndex())
			require.Len(t, solve.InputIDs, 1)
			require.Len(t, solve.MountIDs, 2)
			require.Equal(t, "made\nseed\n", ls(ctx, t, c, solve.MountIDs[1]))
			require.Equal(t, "seed\n", ls(ctx, t, c, solve.InputIDs[0]))
		})
	})
	t.Run("of an input whose content cannot be read", func(t *testing.T) {
		drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			seed := llb.Scratch().File(llb.Mkfile("/seed", 0o644, nil))
			state := llb.Scratch().File(llb.Copy(seed, "/nosuch", "/x"))
			err := treeOf(ctx, t, c, state).Evaluate(ctx)
			require.ErrorContains(t, err, `"/nosuch": not found`)
			solve := failed(t, err)
			require.NotNil(t, solve.GetCache())
			require.Len(t, solve.InputIDs, 1)
			require.Empty(t, solve.MountIDs)
			require.Equal(t, "seed\n", ls(ctx, t, c, solve.InputIDs[0]))
		})
	})
	t.Run("of another build", func(t *testing.T) {
		fails := base.Run(llb.Shell("exit 1"))
		var id string
		drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
			id = failed(t, treeOf(ctx, t, c, fails.Root()).Evaluate(ctx)).MountIDs[0]
			require.NotEmpty(t, ls(ctx, t, c, id))
			drive(t, client, library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
				_, err := c.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", ResultID: id}}})
				require.EqualError(t, err, "return reference "+id+" not found")
				// The step is shared, its trees are known to each by ids of its own.
				own := failed(t, treeOf(ctx, t, c, fails.Root()).Evaluate(ctx)).MountIDs[0]
				require.NotEqual(t, id, own)
				require.NotEmpty(t, ls(ctx, t, c, own))
			})
		})
	})
	d.RequireIdle(t)
	d.MustBuildctl(t, "prune", "--all")
	for line := range strings.Lines(d.MustBuildctl(t, "du", "--verbose").Stdout) {
		require.NotContains(t, line, "mount / from exec", "nothing of a failed step is left")
	}
}
