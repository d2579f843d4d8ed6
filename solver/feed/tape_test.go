package feed_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/solver/feed"
)

var step = digest.FromString("step")

func logFor(who event.Audience, text string) event.Batch {
	return event.Batch{Logs: []event.Log{{Vertex: step, Stream: event.Stdout, Data: []byte(text), Audience: who}}}
}

// shown returns the output that those who watch a feed are shown. The feed must be closed, or ctx end.
func shown(ctx context.Context, t *testing.T, f *feed.Feed) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, watch(ctx, f, func(batch event.Batch) error {
		for _, l := range batch.Logs {
			b.Write(l.Data)
		}
		return nil
	}))
	return b.String()
}

// kept returns the output in the recording of a feed, which is closed.
func kept(t *testing.T, f *feed.Feed) string {
	t.Helper()
	f.Close()
	rec, err := f.Record()
	require.NoError(t, err)
	data := rec.Data
	if rec.Path != "" {
		data, err = os.ReadFile(rec.Path)
		require.NoError(t, err)
	}
	require.Len(t, data, int(rec.Size))
	var b bytes.Buffer
	require.NoError(t, feed.Replay(bytes.NewReader(data), rec.Size, func(status []byte) error {
		var m controlpb.StatusResponse
		if err := proto.Unmarshal(status, &m); err != nil {
			return err
		}
		for _, l := range client.DecodeStatus(&m).Logs {
			b.Write(l.Data)
		}
		return nil
	}))
	return b.String()
}

// A step that is shared by builds tells both, whenever they join and wherever its output is by then.
func TestOutputGoesToThoseItIsFor(t *testing.T) {
	for name, size := range map[string]int{"in memory": 1, "in files": 50 << 10} {
		t.Run(name, func(t *testing.T) {
			unit := func(s string) string { return fmt.Sprintf("%s%0*d\n", s, size, 0) }
			first, late := feed.New(t.TempDir()), feed.New(t.TempDir())
			var pieces feed.Pieces
			tell := func(b event.Batch, others ...*feed.Feed) {
				pieces.Add(first.Keep(b))
				for _, o := range others {
					o.Emit(b)
				}
			}
			all, live := "", ""
			for i := range 20 {
				text := unit(fmt.Sprint(i))
				who := event.Everybody
				if i%3 == 0 {
					who = event.Record
				} else {
					live += text
				}
				all += text
				tell(logFor(who, text))
			}
			tell(logFor(event.Watchers, "[clipped]\n"))
			live += "[clipped]\n"
			late.Repeat(&pieces)
			tell(logFor(event.Everybody, "end\n"), late)
			all, live = all+"end\n", live+"end\n"
			first.Wait()
			first.Close()
			late.Close()
			require.Equal(t, live, shown(t.Context(), t, first))
			require.Equal(t, all, kept(t, first))
			first.Release()
			require.Equal(t, live, shown(t.Context(), t, late))
			require.Equal(t, all, kept(t, late))
			late.Release()
			pieces.Release()
		})
	}
}

// Two builds may have steps of each other, and none must wait for the other, or keep it.
func TestBuildsThatShareStepsBothWaysEnd(t *testing.T) {
	dirs := [2]string{t.TempDir(), t.TempDir()}
	feeds := [2]*feed.Feed{feed.New(dirs[0]), feed.New(dirs[1])}
	var wg sync.WaitGroup
	for i := range feeds {
		wg.Go(func() {
			var pieces feed.Pieces
			for n := range 100 {
				b := logFor(event.Everybody, fmt.Sprintf("%d-%d %010000d\n", i, n, 0))
				pieces.Add(feeds[i].Keep(b))
				feeds[i].Wait()
			}
			for range 10 {
				feeds[1-i].Repeat(&pieces)
			}
			pieces.Release()
		})
	}
	wg.Wait()
	for i, f := range feeds {
		require.Len(t, kept(t, f), 11*100*len(fmt.Sprintf("%d-%02d %010000d\n", 0, 0, 0))-11*10, i)
	}
	for i, f := range feeds {
		f.Release()
		require.ErrorIs(t, f.Watch(t.Context(), func([]byte) error { return nil }), feed.ErrReleased, i)
	}
}

// Whatever is told in whatever sizes comes out the same at every reader.
func TestReadersAgreeWithWhatWasTold(t *testing.T) {
	const readers = 8
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	f := feed.New(t.TempDir())
	texts := make([]string, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { texts[i] = shown(context.Background(), t, f) })
	}
	var live, all bytes.Buffer
	for n := range 400 {
		text := fmt.Sprintf("%d:%0*d\n", n, rnd.IntN(1<<uint(rnd.IntN(18))), n)
		who := event.Audience(rnd.IntN(3))
		if who != event.Watchers {
			all.WriteString(text)
		}
		if who != event.Record {
			live.WriteString(text)
		}
		f.Emit(logFor(who, text))
		f.Wait()
	}
	f.Close()
	wg.Wait()
	for i, text := range texts {
		require.Equal(t, live.String(), text, i)
	}
	require.Equal(t, all.String(), kept(t, f))
	f.Release()
}

// A disk that takes nothing loses output that is not shown, and says so; the build goes on.
func TestADiskThatTakesNothingLosesOutputOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f := feed.New(filepath.Join(file, "no-folder"))
	long := fmt.Sprintf("%0300000d\n", 0)
	f.Emit(logFor(event.Everybody, long))
	f.Wait()
	for range 100 {
		f.Emit(logFor(event.Record, long))
		f.Wait()
	}
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("after")}})
	f.Close()
	text := shown(t.Context(), t, f)
	require.Contains(t, text, "output lost: ")
	require.Less(t, len(text), 2*len(long))
	require.Contains(t, kept(t, f), "output lost: ")
	require.Equal(t, 1, f.Counts().Total)
	f.Release()
}

func TestNoFileIsLeftOfAFeedThatNobodyTook(t *testing.T) {
	dir := t.TempDir()
	f := feed.New(dir)
	for range 20 {
		f.Emit(logFor(event.Everybody, fmt.Sprintf("%0100000d\n", 0)))
	}
	f.Wait()
	f.Close()
	f.Release()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCountsAreThoseOfTheLastStates(t *testing.T) {
	f := feed.New("")
	hit := started(vertex("hit"))
	hit.Cached, hit.Completed = true, hit.Started
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("never"), vertex("hit"), started(vertex("run"))}, Warnings: []event.Warning{{}, {}}})
	f.Emit(event.Batch{Vertices: []event.Vertex{hit}})
	f.Close()
	require.Equal(t, feed.Counts{Total: 3, Cached: 1, Completed: 2, Warnings: 2}, f.Counts())
}

// FuzzReplay reads recordings that a disk has damaged.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 0, 10, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Add([]byte{0, 0, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		err := feed.Replay(bytes.NewReader(data), int64(len(data)), func(status []byte) error {
			total += len(status)
			return nil
		})
		require.LessOrEqual(t, total, len(data))
		if err == nil && len(data) > 0 {
			require.GreaterOrEqual(t, len(data), 4)
		}
	})
}
