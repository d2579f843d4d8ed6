package control_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver"
)

// A frontend that is a client's has no more of the daemon's memory than one that is an image.
func TestMessagesOfAClientOnTheirWayAreBounded(t *testing.T) {
	cc := serve(t, &daemon{solve: func(context.Context, solver.Request) (*solver.Response, error) {
		return &solver.Response{}, nil
	}})
	large := &controlpb.SolveRequest{Ref: "r", Definition: &pb.Definition{Def: [][]byte{make([]byte, 15<<20)}}}
	client := controlpb.NewControlClient(cc)
	// calls makes so many calls at once, whose messages come side by side.
	calls := func(n int) (refused int) {
		var eg errgroup.Group
		results := make([]error, n)
		for i := range n {
			eg.Go(func() error {
				_, results[i] = client.Solve(t.Context(), large)
				return nil
			})
		}
		require.NoError(t, eg.Wait())
		for _, err := range results {
			if err != nil {
				require.Equal(t, codes.Unavailable, status.Code(err), err)
				refused++
			}
		}
		return refused
	}
	for range 3 {
		require.Zero(t, calls(8), "what has arrived counts no more")
	}
	require.Positive(t, calls(60), "the connection ends")
	_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err, "the client may come again")
	require.Zero(t, calls(8), "nothing is left of it")
}
