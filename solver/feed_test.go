package solver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
)

func vertex(name string, inputs ...string) event.Vertex {
	v := event.Vertex{Digest: digest.FromString(name), Name: name}
	for _, in := range inputs {
		v.Inputs = append(v.Inputs, digest.FromString(in))
	}
	return v
}

func started(v event.Vertex) event.Vertex {
	now := time.Now()
	v.Started = &now
	return v
}

// last listens to a feed that is closed and returns the last state of each vertex.
func last(t *testing.T, f *feed) map[string]event.Vertex {
	t.Helper()
	out := map[string]event.Vertex{}
	require.NoError(t, f.listen(t.Context(), func(b event.Batch) error {
		for _, v := range b.Vertices {
			out[v.Name] = v
		}
		return nil
	}))
	return out
}

func TestStartedVertexShowsItsInputsAsCached(t *testing.T) {
	f := newFeed()
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("top", "mid"), vertex("mid", "low", "run"), vertex("low"), vertex("run")}})
	f.Emit(event.Batch{Vertices: []event.Vertex{started(vertex("run"))}})
	f.Emit(event.Batch{Vertices: []event.Vertex{started(vertex("top", "mid"))}})
	f.close()
	vs := last(t, f)
	require.True(t, vs["mid"].Cached)
	require.True(t, vs["low"].Cached)
	require.Equal(t, vs["low"].Started, vs["low"].Completed)
	require.False(t, vs["run"].Cached, "it runs")
	require.Equal(t, "context canceled", vs["run"].Error, "and has not ended")
	require.NotNil(t, vs["top"].Completed)
}

func TestLateListenerIsToldEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		for i := range 2500 {
			f.Emit(event.Batch{Logs: []event.Log{{Data: fmt.Append(nil, i)}}})
		}
		n := 0
		done := make(chan error)
		go func() {
			done <- f.listen(t.Context(), func(b event.Batch) error {
				n += len(b.Logs)
				return nil
			})
		}()
		synctest.Wait()
		require.Equal(t, 2500, n)
		f.Emit(event.Batch{Logs: []event.Log{{}}})
		synctest.Wait()
		require.Equal(t, 2501, n)
		f.close()
		require.NoError(t, <-done)
		f.Emit(event.Batch{Logs: []event.Log{{}}})
		f.close()
	})
}

func TestListenerEndsWithItsContextOrItsError(t *testing.T) {
	f := newFeed()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("gone")
	cancel(cause)
	require.ErrorIs(t, f.listen(ctx, func(event.Batch) error { return nil }), cause)
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("x")}})
	require.ErrorIs(t, f.listen(t.Context(), func(event.Batch) error { return cause }), cause)
}
