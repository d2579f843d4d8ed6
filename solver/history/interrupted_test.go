package history_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// run has a history do what is to be done in the background, until stop is called.
func run(t *testing.T, s *history.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

// killed returns what is on the disk of a daemon that is killed now.
func killed(t *testing.T, dir string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "history")
	require.NoError(t, os.CopyFS(out, os.DirFS(dir)))
	return out
}

// begin begins a build that has told text.
func begin(t *testing.T, s *history.Store, ref, text string) (*history.Build, *feed.Feed) {
	t.Helper()
	told := feed.New(s.TapeDir())
	b := s.Begin(&history.Record{Ref: ref, Frontend: "f", FrontendAttrs: map[string]string{"filename": "x"}})
	require.NotNil(t, b)
	b.Follow(told)
	scope := event.NewScope(told, "v")
	scope.Start("[1/1] RUN sleep", nil)
	scope.Log(event.Stdout, []byte(text))
	return b, told
}

func end(b *history.Build, told *feed.Feed) {
	told.Close()
	b.End(history.Outcome{Feed: told})
}

func running(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "running", "*"))
	require.NoError(t, err)
	return names
}

func TestABuildThatItsDaemonDidNotLiveToEndHasARecord(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("0123456789abcdef", 1<<16)
	var copied, early string
	outer := t
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: dir})
		short, shortTold := begin(t, s, "short", "short\n")
		slow, slowTold := begin(t, s, "slow", "said\n")
		large, largeTold := begin(t, s, "large", long)
		time.Sleep(900 * time.Millisecond) //nolint:forbidigo // moves the clock of the bubble
		end(short, shortTold)
		list(t, s, nil)
		early = killed(outer, dir)
		time.Sleep(4 * time.Second) //nolint:forbidigo // moves the clock of the bubble
		event.NewScope(slowTold, "v").Log(event.Stdout, []byte("saved\n"))
		time.Sleep(2 * time.Second) //nolint:forbidigo // moves the clock of the bubble
		event.NewScope(slowTold, "v").Log(event.Stdout, []byte("lost\n"))
		require.NoError(t, s.Flush(t.Context()))
		copied = killed(outer, dir)
		end(slow, slowTold)
		end(large, largeTold)
		list(t, s, nil)
		require.Empty(t, running(t, dir))
	})
	require.Empty(t, notes(t, early), "nothing is noted at once")

	// The daemon that starts next may be killed, too.
	for range 2 {
		again := killed(t, copied)
		s := open(t, history.Config{Dir: again})
		require.True(t, s.Has("slow"))
		stop := run(t, s)
		check := func(s *history.Store) {
			events := list(t, s, nil)
			require.ElementsMatch(t, []string{"short", "slow", "large"}, refs(events))
			for _, e := range events {
				rec := e.GetRecord()
				require.Equal(t, controlpb.BuildHistoryEventType_COMPLETE, e.GetType())
				require.NotNil(t, rec.GetCompletedAt())
				require.False(t, rec.GetCompletedAt().AsTime().Before(rec.GetCreatedAt().AsTime()))
				if rec.GetRef() == "short" {
					require.Nil(t, rec.GetError())
					continue
				}
				require.EqualValues(t, codes.Unavailable, rec.GetError().GetCode())
				require.Equal(t, "the daemon ended while the build was running", rec.GetError().GetMessage())
				require.Equal(t, "f", rec.GetFrontend())
				require.Equal(t, map[string]string{"filename": "x"}, rec.GetFrontendAttrs())
				require.EqualValues(t, 1, rec.GetNumTotalSteps())
				require.EqualValues(t, 1, rec.GetNumCompletedSteps())
				require.Nil(t, rec.GetTrace())
			}
			for ref, want := range map[string]string{"slow": "said\nsaved\n", "large": long} {
				text, err := output(t, s, ref)
				require.NoError(t, err)
				require.Equal(t, want, text)
			}
		}
		check(s)
		require.NoError(t, s.Finalize(t.Context(), "slow"))
		require.NoError(t, s.Pin(t.Context(), "slow", true))
		stop()
		require.NoError(t, s.Flush(t.Context()))
		require.Empty(t, running(t, again))
		check(open(t, history.Config{Dir: killed(t, again)}))
	}
}

func notes(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "running", "*.build"))
	require.NoError(t, err)
	return names
}

// A daemon that ends before it has made the records of such builds leaves that to the next one.
func TestInterruptedBuildsWaitForADaemonThatLives(t *testing.T) {
	dir := noted(t, "a", "b")
	s := open(t, history.Config{Dir: dir})
	require.NoError(t, s.Close())
	require.Len(t, notes(t, dir), 2)
	s = open(t, history.Config{Dir: dir})
	stop := run(t, s)
	require.ElementsMatch(t, []string{"a", "b"}, refs(list(t, s, nil)))
	stop()
	require.NoError(t, s.Close())
	require.Empty(t, running(t, dir))
	s = open(t, history.Config{Dir: dir})
	require.Len(t, list(t, s, nil), 2)
}

// The record of another build with the same name is no record of the one that was interrupted.
func TestAnInterruptedBuildReplacesAnOlderRecordOfItsName(t *testing.T) {
	var dir string
	first := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: first})
		build(t, s, &history.Record{Ref: "r"}, "old", nil)
		time.Sleep(time.Second) //nolint:forbidigo // moves the clock of the bubble
		b, told := begin(t, s, "r", "new")
		defer end(b, told)
		time.Sleep(2 * time.Second) //nolint:forbidigo // as above
		require.NoError(t, s.Flush(t.Context()))
		dir = filepath.Join(filepath.Dir(first), "killed")
		require.NoError(t, os.CopyFS(dir, os.DirFS(first)))
	})
	for range 2 {
		s := open(t, history.Config{Dir: dir})
		stop := run(t, s)
		require.Equal(t, []string{"r"}, refs(list(t, s, nil)))
		text, err := output(t, s, "r")
		require.NoError(t, err)
		require.Equal(t, "new", text)
		stop()
		require.NoError(t, s.Close())
	}
}

// noted returns the folder of a daemon that was killed while builds ran.
func noted(t *testing.T, refs ...string) (dir string) {
	t.Helper()
	first := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: first})
		for _, ref := range refs {
			b, told := begin(t, s, ref, "of "+ref)
			defer end(b, told)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // moves the clock of the bubble
		dir = filepath.Join(filepath.Dir(first), "killed")
		require.NoError(t, os.CopyFS(dir, os.DirFS(first)))
	})
	require.Len(t, notes(t, dir), len(refs))
	return dir
}

// What is left in the folder may be anything.
func TestNotesThatAreNoneAreNoHindrance(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, note string){
		"no note":       func(t *testing.T, note string) { require.NoError(t, os.Remove(note)) },
		"an empty note": func(t *testing.T, note string) { require.NoError(t, os.Truncate(note, 0)) },
		"noise":         func(t *testing.T, note string) { overwrite(t, note, 0) },
		"a folder": func(t *testing.T, note string) {
			require.NoError(t, os.Remove(note))
			require.NoError(t, os.MkdirAll(note+"/x", 0o700))
		},
		"half a note":    halve,
		"no recording":   func(t *testing.T, note string) { require.NoError(t, os.Remove(strings.TrimSuffix(note, ".build"))) },
		"half recorded":  func(t *testing.T, note string) { halve(t, strings.TrimSuffix(note, ".build")) },
		"noise recorded": func(t *testing.T, note string) { overwrite(t, strings.TrimSuffix(note, ".build"), 0) },
		"a folder recorded": func(t *testing.T, note string) {
			require.NoError(t, os.Remove(strings.TrimSuffix(note, ".build")))
			require.NoError(t, os.MkdirAll(strings.TrimSuffix(note, ".build")+"/x", 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := noted(t, "r")
			damage(t, notes(t, dir)[0])
			s := open(t, history.Config{Dir: dir})
			stop := run(t, s)
			for _, e := range list(t, s, nil) {
				require.EqualValues(t, codes.Unavailable, e.GetRecord().GetError().GetCode())
				_, err := output(t, s, e.GetRecord().GetRef())
				require.NoError(t, err)
			}
			build(t, s, &history.Record{Ref: "after"}, "after", nil)
			stop()
			require.NoError(t, s.Close())
			s = open(t, history.Config{Dir: dir})
			require.Contains(t, refs(list(t, s, nil)), "after")
			require.Empty(t, running(t, dir))
		})
	}
}
