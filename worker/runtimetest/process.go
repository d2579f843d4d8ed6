package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/worker"
)

type (
	ctr  = worker.Container
	proc = worker.Process
)

func requireExit(t *testing.T, err error, code uint32) {
	t.Helper()
	var exit *status.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, code, exit.Code)
}

func testOutput(t *testing.T, b *box) {
	out, errOut, err := b.run(t, "seq 1 20000; seq 5 >&2; echo -n end")
	require.NoError(t, err)
	require.Equal(t, "1\n2\n3\n4\n5\n", errOut)
	lines := strings.Split(out, "\n")
	require.Len(t, lines, 20001)
	require.Equal(t, "end", lines[20000])
}

func testExitCode(t *testing.T, b *box) {
	_, _, err := b.run(t, "exit 42")
	requireExit(t, err, 42)
	require.EqualError(t, err, "exit code: 42")
	require.EqualError(t, worker.ProcessError([]string{"/bin/sh", "-c", "exit\n42"}, err),
		`process "/bin/sh -c exit\n42" did not complete successfully: exit code: 42`)
}

func testValidExitCodes(t *testing.T, b *box) {
	valid := func(_ *ctr, p *proc) { p.ValidExitCodes = []int32{3, 5} }
	_, _, err := b.run(t, "exit 5", valid)
	require.NoError(t, err)
	_, _, err = b.run(t, "exit 0", valid)
	requireExit(t, err, 0)
}

func testNoCommand(t *testing.T, b *box) {
	_, errOut, err := b.run(t, "", func(_ *ctr, p *proc) { p.Args = []string{"/nosuch", "arg"} })
	requireExit(t, err, 1)
	require.Contains(t, errOut, "/nosuch")
}

func testInput(t *testing.T, b *box) {
	text := strings.Repeat("0123456789\n", 30000)
	out := b.must(t, "cat", func(_ *ctr, p *proc) { p.Stdin = strings.NewReader(text) })
	require.Equal(t, text, out+"\n")
	require.Equal(t, "0", b.must(t, "wc -c"), "no input is an empty one")
	require.Equal(t, "piped", b.must(t, "test -p /dev/stdin && echo piped"))
}

func testEnv(t *testing.T, b *box) {
	out := b.must(t, "env | grep ^[AB]=", func(_ *ctr, p *proc) { p.Env = []string{"A=1", path, "B", "B=x=y", "A=2", "A", ""} })
	require.Equal(t, "A=2\nB=x=y", out)
	_, _, err := b.run(t, "true", func(_ *ctr, p *proc) { p.Env = append(p.Env, "=x") })
	require.ErrorContains(t, err, `invalid environment variable "=x"`)
}

func testUsers(t *testing.T, b *box) {
	for user, want := range map[string]string{
		"":          "0 0 0",
		"app":       "1000 1000 10 50 1000",
		"app:wheel": "1000 10 10",
		"77:88":     "77 88 88",
		"1001":      "1001 1002 50 1002",
		"4242":      "4242 0 0",
	} {
		out := b.must(t, `echo $(id -u) $(id -g) $(grep ^Groups: /proc/self/status | awk '{$1=""; print}')`,
			func(_ *ctr, p *proc) { p.User = user })
		require.Equal(t, want, out, user)
	}
}

func testUnknownUser(t *testing.T, b *box) {
	_, _, err := b.run(t, "true", func(_ *ctr, p *proc) { p.User = "ghost" })
	require.EqualError(t, err, "unable to find user ghost: no matching entries in passwd file")
	_, _, err = b.run(t, "true", func(_ *ctr, p *proc) { p.User = "app:ghosts" })
	require.EqualError(t, err, "unable to find group ghosts: no matching entries in group file")
}

func testHostileAccounts(t *testing.T, b *box) {
	passwd := filepath.Join(b.tree.Lower, "etc/passwd")
	group := filepath.Join(b.tree.Lower, "etc/group")
	app := func(_ *ctr, p *proc) { p.User = "app" }

	require.NoError(t, os.Remove(passwd))
	require.NoError(t, unix.Mkfifo(passwd, 0o644))
	_, _, err := b.run(t, "true", app)
	require.ErrorContains(t, err, "/etc/passwd: not a regular file")

	// A link out of the tree stays within it: there is no such file there.
	outside := filepath.Join(t.TempDir(), "passwd")
	require.NoError(t, os.WriteFile(outside, []byte("app:x:5:5::/:/bin/sh\n"), 0o644))
	require.NoError(t, os.Remove(passwd))
	require.NoError(t, os.Symlink("../../../../../../../.."+outside, passwd))
	_, _, err = b.run(t, "true", app)
	require.ErrorContains(t, err, "unable to find user app")

	require.NoError(t, os.Remove(passwd))
	require.NoError(t, os.Symlink("passwd", passwd))
	require.NoError(t, os.Remove(group))
	_, _, err = b.run(t, "true", app)
	require.ErrorContains(t, err, "too many levels of symbolic links")
}

func testCwd(t *testing.T, b *box) {
	require.NoError(t, os.Symlink("/real", filepath.Join(b.tree.Lower, "link")))
	out := b.must(t, `pwd; stat -c "%a %u:%g %n" /real /real/deep`, func(_ *ctr, p *proc) {
		p.Cwd, p.User = "/link/deep", "app"
	})
	require.Equal(t, "/real/deep\n755 1000:1000 /real\n755 1000:1000 /real/deep", out)
	_, _, err := b.run(t, "true", func(_ *ctr, p *proc) { p.Cwd = "/etc/passwd" })
	require.EqualError(t, err, "mkdir /etc/passwd: not a directory")
}

func testID(t *testing.T, b *box) {
	l := b.start(t, "sleep 1000")
	_, _, err := b.run(t, "true", func(c *ctr, _ *proc) { c.ID = l.id })
	require.ErrorContains(t, err, "exists")
	l.cancel(nil)
	<-l.done
	_, _, err = b.run(t, "true", func(c *ctr, _ *proc) { c.ID = "../up" })
	require.ErrorContains(t, err, `invalid container id "../up"`)
}

func testCancel(t *testing.T, b *box) {
	cause := errors.New("the user has gone")
	out := newBuffer()
	l := b.start(t, "trap '' TERM INT; (sleep 1000 & sleep 1000 & echo up; wait)", func(_ *ctr, p *proc) { p.Stdout = out })
	out.wait("up")
	l.cancel(cause)
	require.ErrorIs(t, <-l.done, cause)
}

func testCancelEarly(t *testing.T, b *box) {
	cause := errors.New("the user has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		done <- b.Runtime.Run(ctx, b.container(), proc{Args: []string{"sleep", "1000"}, Env: []string{path}}, nil)
	}()
	cancel(cause)
	require.ErrorIs(t, <-done, cause)
}

func testSignal(t *testing.T, b *box) {
	signals := make(chan syscall.Signal, 1)
	out := newBuffer()
	l := b.start(t, "trap 'echo got; exit 9' HUP; echo ready; while :; do sleep 0.01; done", func(_ *ctr, p *proc) {
		p.Signal, p.Stdout = signals, out
	})
	out.wait("ready")
	signals <- syscall.SIGHUP
	requireExit(t, <-l.done, 9)
	require.Equal(t, "ready\ngot\n", out.String())
}

func testTTY(t *testing.T, b *box) {
	sizes := make(chan worker.WindowSize)
	out := newBuffer()
	in, typed := io.Pipe()
	defer typed.Close()
	l := b.start(t, "tty; trap 'stty size' WINCH; echo ready; while ! read line; do sleep 0.01; done; echo line=$line; exit 4", func(_ *ctr, p *proc) {
		p.Tty, p.Resize, p.Stdout, p.Stdin = true, sizes, out, in
	})
	out.wait("ready")
	sizes <- worker.WindowSize{Rows: 33, Cols: 77}
	out.wait("33 77")
	_, err := typed.Write([]byte("hello\n"))
	require.NoError(t, err)
	requireExit(t, <-l.done, 4)
	require.Contains(t, out.String(), "/dev/pts/0\r\n")
	require.Contains(t, out.String(), "line=hello\r\n")
}

func testExec(t *testing.T, b *box) {
	l := b.start(t, "echo shared > /f; exec sleep 1000")
	var out, errOut strings.Builder
	script := "while ! test -s /f; do :; done; cat /f; pwd; id -u; ps -o comm | grep -c sleep; echo e >&2; exit 6"
	err := b.Runtime.Exec(t.Context(), l.id, proc{
		Args: []string{"sh", "-c", script}, Env: []string{path}, Cwd: "/made", User: "app", Stdout: &out, Stderr: &errOut,
	})
	require.Equal(t, "e\n", errOut.String())
	requireExit(t, err, 6)
	require.Equal(t, "shared\n/made\n1000\n1\n", out.String())

	ctx, cancel := context.WithCancelCause(t.Context())
	started := newBuffer()
	done := make(chan error, 1)
	go func() {
		done <- b.Runtime.Exec(ctx, l.id, proc{Args: []string{"sh", "-c", "echo on; sleep 1000"}, Env: []string{path}, Stdout: started})
	}()
	started.wait("on")
	cause := errors.New("enough")
	cancel(cause)
	require.ErrorIs(t, <-done, cause)

	testExecSecurity(t, b, l.id)
	l.cancel(nil)
	<-l.done
	require.Error(t, b.Runtime.Exec(t.Context(), l.id, proc{Args: []string{"true"}, Env: []string{path}}))
}

// testExecSecurity holds that a process has the privileges that it asks for, whatever its container's.
func testExecSecurity(t *testing.T, b *box, id string) {
	t.Helper()
	caps := func(s pb.SecurityMode) string {
		var out strings.Builder
		p := proc{Args: []string{"grep", "CapEff", "/proc/self/status"}, Env: []string{path}, Stdout: &out, Security: s}
		require.NoError(t, b.Runtime.Exec(t.Context(), id, p))
		return out.String()
	}
	confined := caps(pb.SecurityMode_SANDBOX)
	require.Contains(t, confined, "00000000a80425fb")
	require.NotEqual(t, confined, caps(pb.SecurityMode_INSECURE))
}

func testExecEnds(t *testing.T, b *box) {
	l := b.start(t, "exec sleep 1000")
	out := newBuffer()
	done := make(chan error, 1)
	go func() {
		done <- b.Runtime.Exec(t.Context(), l.id, proc{Args: []string{"sh", "-c", "echo on; sleep 1000"}, Env: []string{path}, Stdout: out})
	}()
	out.wait("on")
	l.cancel(nil)
	require.Error(t, <-l.done)
	require.Error(t, <-done)
}

func testBackground(t *testing.T, b *box) {
	// The output ends although the process in the background holds it open.
	require.Equal(t, "first", b.must(t, "echo first; sleep 1000 & exit 0"))
}

func testConcurrent(t *testing.T, b *box) {
	var g errgroup.Group
	for i := range 8 {
		tree := b.tree.Fork(t)
		g.Go(func() error {
			var out strings.Builder
			c := ctr{Root: worker.Mount{Source: tree, Dest: "/"}}
			err := b.Runtime.Run(t.Context(), c, proc{
				Args: []string{"sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)}, Env: []string{path}, Stdout: &out,
				ValidExitCodes: []int32{int32(i)},
			}, nil)
			if err == nil && out.String() != fmt.Sprintf("%d\n", i) {
				err = fmt.Errorf("container %d wrote %q", i, &out)
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
}
