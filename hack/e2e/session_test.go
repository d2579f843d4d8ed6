package e2e_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	buildkit "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
)

func TestOneSessionServesSeveralBuilds(t *testing.T) {
	t.Parallel()
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	files, err := filesync.NewFS(tree(t, map[string]string{"a": "of a", "b": "of b", "c": "of c"}))
	require.NoError(t, err)
	shared, err := session.New("key")
	require.NoError(t, err)
	shared.Allow(filesync.NewProvider(map[string]fsutil.FS{"context": files}))
	ran := make(chan error, 1)
	go func() { ran <- shared.Run(t.Context(), session.GRPCDialer(controlpb.NewControlClient(c.Conn()))) }()

	var builds errgroup.Group
	for _, name := range []string{"a", "b", "c"} {
		builds.Go(func() error {
			_, err := c.Build(t.Context(), buildkit.SolveOpt{SharedSession: shared}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
				definition, err := llb.Local("context", llb.FollowPaths(name)).Marshal(ctx)
				if err != nil {
					return nil, err
				}
				res, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition})
				if err != nil {
					return nil, err
				}
				data, err := res.Ref.ReadFile(ctx, gateway.ReadRequest{Filename: name})
				if err == nil && string(data) != "of "+name {
					err = fmt.Errorf("%s holds %q", name, data)
				}
				return res, err
			})
			return err
		})
	}
	require.NoError(t, builds.Wait())
	select {
	case err := <-ran:
		t.Fatalf("the session ended with the builds: %v", err)
	default:
	}
	require.NoError(t, shared.Close())
	<-ran
	_, err = c.Build(t.Context(), buildkit.SolveOpt{SharedSession: shared}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		return g.Solve(ctx, gateway.SolveRequest{Definition: marshal(t, llb.Local("context")), Evaluate: true})
	})
	require.ErrorContains(t, err, "session")
}
