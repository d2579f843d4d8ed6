package feed_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/solver/feed"
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

// watch is Watch with decoded messages.
func watch(ctx context.Context, f *feed.Feed, emit func(event.Batch) error) error {
	return f.Watch(ctx, func(status []byte) error {
		var m controlpb.StatusResponse
		if err := proto.Unmarshal(status, &m); err != nil {
			return err
		}
		return emit(client.DecodeStatus(&m))
	})
}

// last listens to a feed that is closed and returns the last state of each vertex.
func last(t *testing.T, f *feed.Feed) map[string]event.Vertex {
	t.Helper()
	out := map[string]event.Vertex{}
	require.NoError(t, watch(t.Context(), f, func(b event.Batch) error {
		for _, v := range b.Vertices {
			out[v.Name] = v
		}
		return nil
	}))
	return out
}

func TestStartedVertexShowsItsInputsAsCached(t *testing.T) {
	f := feed.New("")
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("top", "mid"), vertex("mid", "low", "run"), vertex("low"), vertex("run")}})
	f.Emit(event.Batch{Vertices: []event.Vertex{started(vertex("run"))}})
	f.Emit(event.Batch{Vertices: []event.Vertex{started(vertex("top", "mid"))}})
	f.Close()
	vs := last(t, f)
	require.True(t, vs["mid"].Cached)
	require.True(t, vs["low"].Cached)
	require.Equal(t, vs["low"].Started, vs["low"].Completed)
	require.False(t, vs["run"].Cached, "it runs")
	require.Equal(t, "context canceled", vs["run"].Error, "and has not ended")
	require.NotNil(t, vs["top"].Completed)
}

func TestInputsAreShownAsCachedBeforeWhatNeedsThem(t *testing.T) {
	f := feed.New("")
	f.Emit(event.Batch{Vertices: []event.Vertex{
		vertex("top", "left", "right"), vertex("left", "mid", "low"), vertex("right", "mid"), vertex("mid", "low"), vertex("low"),
	}})
	f.Emit(event.Batch{Vertices: []event.Vertex{started(vertex("top", "left", "right"))}})
	f.Close()
	var names []string
	require.NoError(t, watch(t.Context(), f, func(b event.Batch) error {
		for _, v := range b.Vertices {
			if v.Started != nil && v.Error == "" {
				names = append(names, v.Name)
			}
		}
		return nil
	}))
	require.Equal(t, []string{"low", "mid", "left", "right", "top"}, names)
}

func TestLateListenerIsToldEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New("")
		for i := range 2500 {
			f.Emit(event.Batch{Logs: []event.Log{{Data: fmt.Append(nil, i)}}})
		}
		n := 0
		done := make(chan error)
		go func() {
			done <- watch(t.Context(), f, func(b event.Batch) error {
				n += len(b.Logs)
				return nil
			})
		}()
		synctest.Wait()
		require.Equal(t, 2500, n)
		f.Emit(event.Batch{Logs: []event.Log{{}}})
		synctest.Wait()
		require.Equal(t, 2501, n)
		f.Close()
		require.NoError(t, <-done)
		f.Emit(event.Batch{Logs: []event.Log{{}}})
		f.Close()
	})
}

func TestManyListenersHaveTheLastAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New("")
		const listeners = 200
		var told atomic.Int64
		var all sync.WaitGroup
		for range listeners {
			all.Go(func() {
				assert.NoError(t, watch(t.Context(), f, func(b event.Batch) error {
					told.Add(int64(len(b.Logs)))
					return nil
				}))
			})
		}
		synctest.Wait()
		f.Emit(event.Batch{Logs: []event.Log{{}}})
		synctest.Wait()
		require.Less(t, told.Load(), int64(listeners), "they rest before they read")
		end := time.Now()
		f.Close()
		all.Wait()
		require.Zero(t, time.Since(end))
		require.EqualValues(t, listeners, told.Load())
	})
}

func TestListenerEndsWithItsContextOrItsError(t *testing.T) {
	f := feed.New("")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("gone")
	cancel(cause)
	require.ErrorIs(t, watch(ctx, f, func(event.Batch) error { return nil }), cause)
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("x")}})
	require.ErrorIs(t, watch(t.Context(), f, func(event.Batch) error { return cause }), cause)
}

// Names of files are bytes, and are in errors and in names of what is done with them.
func TestWhatIsNoTextIsToldAllTheSame(t *testing.T) {
	f := feed.New("")
	bad := started(vertex("copy \xff"))
	bad.Completed, bad.Error = bad.Started, "no file \xfe"
	f.Emit(event.Batch{
		Vertices: []event.Vertex{bad, vertex("good")},
		Statuses: []event.Status{{ID: "file \xff", Name: "\xff", Vertex: bad.Digest}},
		Warnings: []event.Warning{{Short: []byte("\xff"), Detail: [][]byte{{0xff}}, URL: "\xff"}},
	})
	f.Close()
	told := last(t, f)
	require.Len(t, told, 2)
	require.Equal(t, "no file \uFFFD", told["copy \uFFFD"].Error)
	require.NoError(t, watch(t.Context(), f, func(b event.Batch) error {
		require.Len(t, b.Statuses, 1)
		require.Len(t, b.Warnings, 1)
		require.Equal(t, []byte("\xff"), b.Warnings[0].Short)
		return nil
	}))
}
