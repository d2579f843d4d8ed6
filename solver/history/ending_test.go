package history_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// endLater ends a build whose record cannot be made before hold is closed.
func endLater(s *history.Store, ref string, hold <-chan struct{}) {
	told := feed.New(s.TapeDir())
	b := s.Begin(&history.Record{Ref: ref})
	told.Close()
	b.End(history.Outcome{Feed: told, Err: errors.New("of " + ref), Later: func(o *history.Outcome) {
		<-hold
		d, err := b.Attach("text/plain", []byte(ref), nil)
		if err == nil {
			o.Result = &controlpb.BuildResultInfo{Attestations: []*controlpb.Descriptor{d}}
		}
	}})
}

func TestARecordIsMadeAfterTheBuildAndThereForWhoAsks(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: dir})
		hold := make(chan struct{})
		endLater(s, "a", hold)
		endLater(s, "b", hold)
		require.True(t, s.Has("a"), "it will be a record")

		asked := map[string]func() error{
			"list": func() error {
				if got := refs(list(t, s, nil)); len(got) != 2 {
					return fmt.Errorf("told of %q", got)
				}
				return nil
			},
			"one": func() error {
				got := list(t, s, &controlpb.BuildHistoryRequest{Ref: "b"})
				if len(got) != 1 || got[0].GetRecord().GetResult() == nil {
					return fmt.Errorf("told of %q", refs(got))
				}
				return nil
			},
			"replay": func() error { return s.Replay(t.Context(), "b", func([]byte) error { return nil }) },
			"pin":    func() error { return s.Pin(t.Context(), "a", true) },
			"blob": func() error {
				_, err := s.Content().Info(t.Context(), digest.FromString("b"))
				return err
			},
			"flush": func() error { return s.Flush(t.Context()) },
		}
		answers := make(chan error, len(asked))
		for name, ask := range asked {
			go func() {
				if err := ask(); err != nil {
					answers <- fmt.Errorf("%s: %w", name, err)
					return
				}
				answers <- nil
			}()
		}
		synctest.Wait()
		require.Empty(t, answers, "who asks waits for the record")
		close(hold)
		for range asked {
			require.NoError(t, <-answers)
		}
	})
}

func TestRecordsAreMadeInTheOrderOfEndsAndBeforeTheHistoryCloses(t *testing.T) {
	dir := t.TempDir()
	const builds = 200
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: dir})
		hold := make(chan struct{})
		var told []string
		ctx, stop := context.WithCancel(t.Context())
		listening := make(chan struct{})
		go func() {
			defer close(listening)
			_ = s.Listen(ctx, &controlpb.BuildHistoryRequest{}, func(e *history.Event) error {
				if e.GetType() == controlpb.BuildHistoryEventType_COMPLETE {
					told = append(told, e.GetRecord().GetRef())
				}
				return nil
			})
		}()
		synctest.Wait()
		ended := 0
		go func() {
			for i := range builds {
				endLater(s, fmt.Sprintf("%03d", i), hold)
				ended++
			}
		}()
		synctest.Wait()
		require.Less(t, ended, builds, "what waits is bounded")
		require.Greater(t, ended, 10)
		close(hold)
		synctest.Wait()
		require.Equal(t, builds, ended)
		stop()
		<-listening
		require.Len(t, told, builds)
		require.True(t, slices.IsSorted(told))

		// The last one is not made yet when the history closes.
		hold = make(chan struct{})
		endLater(s, "last", hold)
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		require.Empty(t, closed)
		close(hold)
		require.NoError(t, <-closed)
	})
	again := open(t, history.Config{Dir: dir})
	events := list(t, again, nil)
	require.Len(t, events, builds+1)
	for _, e := range events {
		require.Equal(t, "of "+e.GetRecord().GetRef(), e.GetRecord().GetError().GetMessage())
		require.Len(t, e.GetRecord().GetResult().GetAttestations(), 1)
	}
}

// Who lists is not kept waiting by builds that end after it has asked.
func TestAListEndsHoweverManyBuildsEndMeanwhile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, history.Config{Dir: dir})
		const builds = 30
		var holds [builds]chan struct{}
		for i := range holds {
			holds[i] = make(chan struct{})
		}
		endLater(s, "0", holds[0])
		listed := make(chan []string, 1)
		go func() {
			var told []string
			_ = s.Listen(context.Background(), &controlpb.BuildHistoryRequest{EarlyExit: true}, func(e *history.Event) error {
				told = append(told, e.GetRecord().GetRef())
				return nil
			})
			listed <- told
		}()
		synctest.Wait()
		require.Empty(t, listed)
		// At every moment there is a build that has ended and has no record.
		for i := 1; i < builds; i++ {
			endLater(s, fmt.Sprint(i), holds[i])
			close(holds[i-1])
			synctest.Wait()
		}
		require.Len(t, listed, 1)
		require.Contains(t, <-listed, "0")
		close(holds[builds-1])
	})
}

// A name that is used again may be listened to, also while others still listen to the record that had it.
func TestANameWhoseRecordIsBeingDeletedCanBeUsedAgain(t *testing.T) {
	s := open(t, history.Config{})
	build(t, s, &history.Record{Ref: "r"}, "old", nil)
	l := listen(t, s, &controlpb.BuildHistoryRequest{Ref: "r"})
	l.next(t, controlpb.BuildHistoryEventType_COMPLETE, "r")
	require.NoError(t, s.Delete(t.Context(), "r"))
	l.next(t, controlpb.BuildHistoryEventType_DELETED, "r")
	build(t, s, &history.Record{Ref: "r"}, "new", nil)
	l.next(t, controlpb.BuildHistoryEventType_STARTED, "r")
	l.next(t, controlpb.BuildHistoryEventType_COMPLETE, "r")
	l.end(t)
	text, err := output(t, s, "r")
	require.NoError(t, err)
	require.Equal(t, "new", text)

	l = listen(t, s, &controlpb.BuildHistoryRequest{Ref: "r"})
	l.next(t, controlpb.BuildHistoryEventType_COMPLETE, "r")
	require.NoError(t, s.Delete(t.Context(), "r"))
	l.next(t, controlpb.BuildHistoryEventType_DELETED, "r")
	s.Begin(&history.Record{Ref: "r"})
	l.next(t, controlpb.BuildHistoryEventType_STARTED, "r")
	require.Equal(t, controlpb.BuildHistoryEventType_STARTED, list(t, s, &controlpb.BuildHistoryRequest{Ref: "r"})[0].GetType())
	l.end(t)
}

// What has not been told to a listener is bounded: one that has not listened for very long is told so.
func TestAListenerThatDoesNotListenIsGivenUp(t *testing.T) {
	s := open(t, history.Config{MaxEntries: 10})
	hold := make(chan struct{})
	asleep := make(chan struct{})
	ended := make(chan error, 1)
	s.Begin(&history.Record{Ref: "first"})
	go func() {
		told := 0
		ended <- s.Listen(context.Background(), &controlpb.BuildHistoryRequest{}, func(*history.Event) error {
			if told++; told == 1 {
				close(asleep)
				<-hold
			}
			return nil
		})
	}()
	<-asleep
	for i := range 11_000 {
		s.Begin(&history.Record{Ref: fmt.Sprint("build", i)})
	}
	close(hold)
	err := <-ended
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "too much has happened")
}
