package e2e_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// connectTo returns a client of the daemon.
func connectTo(tb testing.TB, d *harness.Daemon) *library.Client {
	tb.Helper()
	c, err := library.New(d.Addr)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// drive runs a frontend on this side and returns the error of the build.
func drive(tb testing.TB, c *library.Client, opt library.SolveOpt, frontend func(context.Context, gateway.Client) error) error {
	tb.Helper()
	_, err := c.Build(tb.Context(), opt, "buildctl", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		return nil, frontend(ctx, c)
	})
	return err
}

// treeOf returns a reference of a state.
func treeOf(ctx context.Context, c gateway.Client, state llb.State) (gateway.Reference, error) {
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, gateway.SolveRequest{Definition: def})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// captured collects what a process writes.
type captured struct{ bytes.Buffer }

func (*captured) Close() error { return nil }

func TestAFrontendRunsAProcessInAContainer(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	err := drive(t, connectTo(t, d), library.SolveOpt{}, func(ctx context.Context, c gateway.Client) error {
		ref, err := treeOf(ctx, c, llb.Image("busybox"))
		require.NoError(t, err)
		ctr, err := c.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", Ref: ref}}})
		require.NoError(t, err)
		var out captured
		p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"sh", "-c", "echo hello; echo file > /f; exit 3"}, Stdout: &out})
		require.NoError(t, err)
		require.EqualError(t, p.Wait(), "exit code: 3")
		require.Equal(t, "hello\n", out.String())
		data, err := ctr.ReadFile(ctx, 0, gateway.ReadRequest{Filename: "/f"})
		require.NoError(t, err)
		require.Equal(t, "file\n", string(data))
		return ctr.Release(ctx)
	})
	require.NoError(t, err)
	d.RequireIdle(t)
}
