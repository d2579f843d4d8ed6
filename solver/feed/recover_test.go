package feed_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/solver/feed"
)

const cause = "it was killed"

// saved tells a feed what a build that runs may have told, and returns what is on the disk.
func saved(t *testing.T, text string) []byte {
	t.Helper()
	f := feed.New(t.TempDir())
	hit := started(vertex("hit"))
	hit.Completed, hit.Cached = hit.Started, true
	f.Emit(event.Batch{Vertices: []event.Vertex{vertex("never"), hit, started(vertex("run", "hit"))}, Warnings: []event.Warning{{}}})
	f.Emit(logFor(event.Everybody, text))
	f.Emit(logFor(event.Record, text))
	path, err := f.Save()
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	f.Emit(logFor(event.Everybody, "more"))
	f.Close()
	_, err = f.Save()
	require.Error(t, err)
	f.Release()
	require.NoFileExists(t, path)
	return data
}

type recovered struct {
	text     string
	vertices map[string]event.Vertex
	counts   feed.Counts
}

// recoverFile makes a recording of what is in a file and reads it.
func recoverFile(t *testing.T, data []byte, at time.Time) (recovered, *feed.Recording) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tape")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	rec, counts, err := feed.Recover(path, at, cause)
	require.NoError(t, err)
	if rec.Path != "" {
		require.Equal(t, path, rec.Path)
		rec.Data, err = os.ReadFile(path)
		require.NoError(t, err)
	} else {
		require.NoFileExists(t, path)
	}
	require.Len(t, rec.Data, int(rec.Size))
	out := recovered{vertices: map[string]event.Vertex{}, counts: counts}
	require.NoError(t, feed.Replay(bytes.NewReader(rec.Data), rec.Size, func(status []byte) error {
		var m controlpb.StatusResponse
		require.NoError(t, proto.Unmarshal(status, &m))
		b := client.DecodeStatus(&m)
		for _, v := range b.Vertices {
			out.vertices[v.Name] = v
		}
		for _, l := range b.Logs {
			out.text += string(l.Data)
		}
		return nil
	}))
	return out, rec
}

func TestWhatWasSavedIsRecovered(t *testing.T) {
	at := time.Unix(2_000_000_000, 0).UTC()
	for _, size := range []int{10, 200_000, 3 << 20} {
		text := strings.Repeat("0123456789", size/10)
		got, rec := recoverFile(t, saved(t, text), at)
		require.Equal(t, text+text, got.text)
		require.Equal(t, rec.Size >= 256<<10, rec.Path != "")
		require.Equal(t, feed.Counts{Total: 3, Cached: 1, Completed: 2, Warnings: 1}, got.counts)
		require.Nil(t, got.vertices["never"].Completed)
		require.Empty(t, got.vertices["hit"].Error)
		require.Equal(t, cause, got.vertices["run"].Error)
		require.Equal(t, at, got.vertices["run"].Completed.UTC())
	}
}

// A file may end anywhere, and have anything in it.
func TestWhatIsWholeOfAFileIsRecovered(t *testing.T) {
	whole := saved(t, "hello\n")
	last := 0
	for n := range len(whole) {
		got, _ := recoverFile(t, whole[:n], time.Now())
		require.True(t, strings.HasPrefix(strings.Repeat("hello\n", 2), got.text))
		require.GreaterOrEqual(t, len(got.text), last)
		last = len(got.text)
		for _, v := range got.vertices {
			require.True(t, v.Started == nil || v.Completed != nil, v.Name)
		}
	}
	for n := range len(whole) {
		noise := bytes.Clone(whole)
		noise[n] ^= 0xff
		recoverFile(t, noise, time.Now())
	}
	_, _, err := feed.Recover(filepath.Join(t.TempDir(), "none"), time.Now(), cause)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What is short is in memory in the end, also if it was saved; and readers do not notice.
func TestToSaveChangesNothingForReaders(t *testing.T) {
	dir := t.TempDir()
	f := feed.New(dir)
	var told strings.Builder
	live := make(chan string, 1)
	go func() {
		var b strings.Builder
		_ = watch(context.Background(), f, func(batch event.Batch) error {
			for _, l := range batch.Logs {
				b.Write(l.Data)
			}
			return nil
		})
		live <- b.String()
	}()
	for i := range 100 {
		line := fmt.Sprintf("%d %0500d\n", i, 0)
		told.WriteString(line)
		f.Emit(logFor(event.Everybody, line))
		if i%7 == 0 {
			_, err := f.Save()
			require.NoError(t, err)
		}
	}
	f.Close()
	require.Equal(t, told.String(), <-live)
	require.Equal(t, told.String(), shown(t.Context(), t, f))
	rec, err := f.Record()
	require.NoError(t, err)
	require.Empty(t, rec.Path)
	require.Len(t, rec.Data, int(rec.Size))
	f.Release()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestASaveThatFailsLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f := feed.New(filepath.Join(file, "no-folder"))
	for range 3 {
		f.Emit(logFor(event.Everybody, "a"))
		f.Emit(logFor(event.Record, "b"))
		_, err := f.Save()
		require.Error(t, err)
	}
	require.Equal(t, "ababab", kept(t, f))
	f.Release()
}
