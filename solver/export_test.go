package solver

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/key"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/platform"
)

// exportFunc is an exporter.
type exportFunc func(context.Context, exporter.Env) (map[string]string, error)

func (exportFunc) Name() string { return "exporting" }

func (f exportFunc) Export(ctx context.Context, _ *exporter.Result, env exporter.Env) (map[string]string, error) {
	return f(ctx, env)
}

func exportAll(t *testing.T, outputs ...exporter.Instance) (map[string]string, error) {
	t.Helper()
	keys, err := key.Open(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	w := &worker.Worker{Platforms: platform.NewHost(platform.Config{Fixed: []ocispec.Platform{platforms.MustParse("linux/amd64")}})}
	j := &job{solver: &Solver{cfg: Config{Worker: w}}, feed: feed.New(""), sessions: session.IDs{}, outputs: outputs}
	j.sched = schedule.New(keys, nil, nil).NewJob(nil, j.feed, j)
	defer j.sched.Close()
	return j.export(t.Context(), &gateway.Result{}, nil)
}

func TestNothingIsPushedBeforeEveryExporterIsReady(t *testing.T) {
	var made atomic.Int64
	one := exportFunc(func(ctx context.Context, env exporter.Env) (map[string]string, error) {
		made.Add(1)
		if err := env.AwaitOthers(ctx); err != nil {
			return nil, err
		}
		require.EqualValues(t, 3, made.Load())
		return nil, env.AwaitOthers(ctx)
	})
	silent := exportFunc(func(context.Context, exporter.Env) (map[string]string, error) {
		made.Add(1)
		return nil, nil
	})
	_, err := exportAll(t, one, silent, one)
	require.NoError(t, err)
}

func TestAnExporterThatFailsKeepsOthersFromPushing(t *testing.T) {
	pushed := false
	failure := errors.New("disk is full")
	_, err := exportAll(t,
		exportFunc(func(ctx context.Context, env exporter.Env) (map[string]string, error) {
			err := env.AwaitOthers(ctx)
			pushed = err == nil
			return nil, err
		}),
		exportFunc(func(context.Context, exporter.Env) (map[string]string, error) { return nil, failure }),
	)
	require.ErrorIs(t, err, failure)
	require.False(t, pushed)
}

func TestTheResponseIsThatOfAllExportersTheLastOnTop(t *testing.T) {
	answer := func(resp map[string]string) exporter.Instance {
		return exportFunc(func(context.Context, exporter.Env) (map[string]string, error) { return resp, nil })
	}
	resp, err := exportAll(t,
		answer(map[string]string{"image.name": "a", "one": "1"}), answer(nil), answer(map[string]string{"image.name": "c", "three": "3"}))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"image.name": "c", "one": "1", "three": "3"}, resp)
}

func TestEveryExporterHasAnIDAndAVertexOfItsOwn(t *testing.T) {
	var seen [3]atomic.Bool
	same := exportFunc(func(_ context.Context, env exporter.Env) (map[string]string, error) {
		require.False(t, seen[env.ID].Swap(true))
		return nil, nil
	})
	_, err := exportAll(t, same, same, same)
	require.NoError(t, err)
	for i := range seen {
		require.True(t, seen[i].Load())
	}
}
