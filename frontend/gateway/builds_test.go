package gateway_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// incoming is the context of a call that names a build.
func incoming(t *testing.T, id string) context.Context {
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs(gateway.BuildIDKey, id))
}

func ping(ctx context.Context, b *gateway.Builds) error {
	_, err := b.Ping(ctx, &gatewaypb.PingRequest{})
	return err
}

func TestCallsReachTheBuildTheyName(t *testing.T) {
	builds := gateway.NewBuilds()
	c := serve(t, builds)
	for _, id := range []string{"one", "two"} {
		build, err := builds.Register(id)
		require.NoError(t, err)
		defer build.Close(nil)
		ref := &fakeRef{file: id}
		returned := make(chan *client.Result, 1)
		go func() {
			res, err := build.Run(t.Context(), solved(&client.Result{Ref: ref}))
			if err != nil {
				res = nil
			}
			returned <- res
		}()
		ctx := metadata.AppendToOutgoingContext(t.Context(), gateway.BuildIDKey, id)
		solved, err := c.Solve(ctx, &gatewaypb.SolveRequest{})
		require.NoError(t, err)
		file, err := c.ReadFile(ctx, &gatewaypb.ReadFileRequest{Ref: solved.GetRef(), FilePath: "/f"})
		require.NoError(t, err)
		require.Equal(t, id, string(file.GetData()))
		_, err = c.Return(ctx, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{
			Result: &gatewaypb.Result_RefDeprecated{RefDeprecated: solved.GetRef()},
		}})
		require.NoError(t, err)
		require.Same(t, ref, (<-returned).Ref)
		_, err = c.Ping(ctx, &gatewaypb.PingRequest{})
		require.True(t, status.IsUnknownJob(err), "a build that has returned is over: %v", err)
	}
	_, err := c.Ping(t.Context(), &gatewaypb.PingRequest{})
	require.EqualError(t, err, "no buildid found in context")
}

func TestACallThatComesBeforeItsBuildWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		answered := make(chan error, 1)
		go func() { answered <- ping(incoming(t, "b"), builds) }()
		time.Sleep(2 * time.Second) //nolint:forbidigo // fake time
		build, err := builds.Register("b")
		require.NoError(t, err)
		// The build is known: now it may take its time to start.
		time.Sleep(time.Minute) //nolint:forbidigo // fake time
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = build.Run(ctx, &fakeBridge{}) }()
		require.NoError(t, <-answered)
		cancel()
		build.Close(nil)
	})
}

func TestACallOfAnUnknownBuildGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		start := time.Now()
		err := ping(incoming(t, "b"), builds)
		require.EqualError(t, err, "no such job b")
		require.Equal(t, codes.NotFound, status.Code(err))
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestACallOfARefusedBuildGetsTheReasonAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		build, err := builds.Register("b")
		require.NoError(t, err)
		early := make(chan error, 1)
		go func() { early <- ping(incoming(t, "b"), builds) }()
		synctest.Wait()
		reason := errors.New("no such exporter")
		build.Close(reason)
		start := time.Now()
		require.Equal(t, reason, <-early)
		require.Equal(t, reason, ping(incoming(t, "b"), builds), "late")
		require.Zero(t, time.Since(start))

		build, err = builds.Register("b")
		require.NoError(t, err, "an id may be used again")
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { _, _ = build.Run(ctx, &fakeBridge{}); close(ran) }()
		require.NoError(t, ping(incoming(t, "b"), builds))
		cancel()
		<-ran
		build.Close(errors.New("cancelled"))
		require.EqualError(t, ping(incoming(t, "b"), builds), "no such job b")
		require.Zero(t, time.Since(start))
	})
}

func TestOnlySomeBuildsThatAreOverAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		for i := range 1000 {
			build, err := builds.Register(strconv.Itoa(i))
			require.NoError(t, err)
			build.Close(nil)
			build.Close(nil)
		}
		start := time.Now()
		require.EqualError(t, ping(incoming(t, "999"), builds), "no such job 999")
		require.Zero(t, time.Since(start))
		require.EqualError(t, ping(incoming(t, "0"), builds), "no such job 0")
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestCallsEndWithTheirBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		build, err := builds.Register("b")
		require.NoError(t, err)
		_, err = builds.Register("b")
		require.EqualError(t, err, "job ID b exists")

		bridge := &fakeBridge{solve: func(ctx context.Context, _ client.SolveRequest) (*client.Result, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}}
		cancelled := errors.New("cancelled by the user")
		ctx, cancel := context.WithCancelCause(t.Context())
		ran := make(chan error, 1)
		go func() {
			_, err := build.Run(ctx, bridge)
			ran <- err
		}()
		call := make(chan error, 1)
		go func() {
			_, err := builds.Solve(incoming(t, "b"), &gatewaypb.SolveRequest{})
			call <- err
		}()
		synctest.Wait()
		cancel(cancelled)
		require.ErrorIs(t, <-ran, cancelled)
		select {
		case err := <-call:
			require.EqualError(t, err, "the build has ended")
		default:
			t.Fatal("Run returned before its calls had ended")
		}
		build.Close(nil)
		build.Close(nil)
		_, err = builds.Register("b")
		require.NoError(t, err)
	})
}

func TestCallsOfABuildThatNeverRanAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		builds := gateway.NewBuilds()
		build, err := builds.Register("b")
		require.NoError(t, err)
		call := make(chan error, 1)
		go func() { call <- ping(incoming(t, "b"), builds) }()
		synctest.Wait()
		start := time.Now()
		build.Close(nil)
		require.EqualError(t, <-call, "no such job b")
		require.Equal(t, start, time.Now())
	})
}
