package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// ear listens to the history and keeps what it hears of each build.
type ear struct {
	stop context.CancelFunc
	done chan error

	mu    sync.Mutex
	heard map[string][]*controlpb.BuildHistoryEvent
	more  chan struct{}
}

func hear(tb testing.TB, c *bkclient.Client, req *controlpb.BuildHistoryRequest) *ear {
	tb.Helper()
	ctx, stop := context.WithCancel(tb.Context())
	e := &ear{stop: stop, done: make(chan error, 1), heard: map[string][]*controlpb.BuildHistoryEvent{}, more: make(chan struct{}, 1)}
	go func() {
		e.done <- c.ListenHistory(ctx, req, func(ev *controlpb.BuildHistoryEvent) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard[ev.GetRecord().GetRef()] = append(e.heard[ev.GetRecord().GetRef()], ev)
			select {
			case e.more <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	return e
}

// last returns what was heard last of a build.
func (e *ear) last(ref string) controlpb.BuildHistoryEventType {
	e.mu.Lock()
	defer e.mu.Unlock()
	if all := e.heard[ref]; len(all) > 0 {
		return all[len(all)-1].GetType()
	}
	return -1
}

// await returns when the last that was heard of a build is of a kind.
func (e *ear) await(tb testing.TB, ref string, kind controlpb.BuildHistoryEventType) {
	tb.Helper()
	timeout := time.After(30 * time.Second)
	for e.last(ref) != kind {
		select {
		case <-e.more:
		case err := <-e.done:
			require.NoError(tb, err)
			require.Equal(tb, kind, e.last(ref), "of %s, at the end", ref)
		case <-timeout:
			require.Equal(tb, kind, e.last(ref), "of %s", ref)
		}
	}
}

// kinds checks what was heard of a build and returns the kinds, each once where it follows itself.
func (e *ear) kinds(tb testing.TB, ref string) []controlpb.BuildHistoryEventType {
	tb.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []controlpb.BuildHistoryEventType
	generation := int32(-1)
	for _, ev := range e.heard[ref] {
		out = append(out, ev.GetType())
		rec := ev.GetRecord()
		switch ev.GetType() {
		case controlpb.BuildHistoryEventType_STARTED:
			require.NotNil(tb, rec.GetCreatedAt())
			require.Nil(tb, rec.GetCompletedAt())
		case controlpb.BuildHistoryEventType_COMPLETE:
			require.NotNil(tb, rec.GetCompletedAt())
			require.GreaterOrEqual(tb, rec.GetGeneration(), generation)
			generation = rec.GetGeneration()
		case controlpb.BuildHistoryEventType_DELETED:
			require.Nil(tb, rec.GetCreatedAt(), "nothing but the ref is told")
		}
	}
	return slices.Compact(out)
}

// Whoever listens, whenever and to whatever, hears of each build that it starts, then that it is complete, then
// that its record is deleted.
func TestListenersAgreeWhileManyBuildsRun(t *testing.T) {
	const (
		started  = controlpb.BuildHistoryEventType_STARTED
		complete = controlpb.BuildHistoryEventType_COMPLETE
		deleted  = controlpb.BuildHistoryEventType_DELETED
	)
	d := start(t, harness.DaemonOptions{})
	c := connect(t, d)
	refs := make([]string, 8)
	var ears []*ear
	of := map[string]*ear{} // one that listens to a build alone, from before it begins
	for i := range refs {
		refs[i] = bkclient.NewRef()
		of[refs[i]] = hear(t, c, &controlpb.BuildHistoryRequest{Ref: refs[i]})
	}
	ears = append(ears, hear(t, c, &controlpb.BuildHistoryRequest{}), hear(t, c, &controlpb.BuildHistoryRequest{ActiveOnly: true}))
	var builds sync.WaitGroup
	for i, ref := range refs {
		definition := marshal(t, llb.Image("docker.io/library/busybox").Run(llb.Shell(fmt.Sprintf("echo %d; sleep 0.%d; exit %d", i, i, i%2))).Root())
		builds.Go(func() {
			_, err := c.Solve(t.Context(), definition, bkclient.SolveOpt{Ref: ref, Progress: event.Discard})
			if (err != nil) != (i%2 == 1) {
				t.Errorf("build %d: %v", i, err)
			}
		})
		if i%2 == 0 {
			of[ref].await(t, ref, started) // as early as can be
			ears = append(ears, hear(t, c, &controlpb.BuildHistoryRequest{}))
		}
	}
	builds.Wait()
	ears = append(ears, hear(t, c, &controlpb.BuildHistoryRequest{}))
	for _, ref := range refs {
		for _, e := range ears {
			e.await(t, ref, complete)
		}
		of[ref].await(t, ref, complete)
	}

	// All at once, and each twice.
	var changes sync.WaitGroup
	failures := make(chan error, 100)
	for _, ref := range refs {
		for range 2 {
			changes.Go(func() { failures <- c.PinHistory(t.Context(), ref, true) })
			changes.Go(func() { failures <- c.FinalizeHistory(t.Context(), ref) })
			changes.Go(func() { failures <- c.DeleteHistory(t.Context(), ref) })
		}
	}
	changes.Wait()
	close(failures)
	for err := range failures {
		require.True(t, err == nil || status.Code(err) == codes.NotFound, "%v", err)
	}
	for _, ref := range refs {
		for i, e := range ears {
			e.await(t, ref, deleted)
			kinds := e.kinds(t, ref)
			if kinds[0] == started {
				kinds = kinds[1:]
			}
			require.Contains(t, [][]controlpb.BuildHistoryEventType{{complete, deleted}, {deleted}}, kinds, "listener %d", i)
		}
		of[ref].await(t, ref, deleted)
		require.Equal(t, started, of[ref].kinds(t, ref)[0])
		// It is deleted for all but those who listen to it.
		err := c.ListenHistory(t.Context(), &controlpb.BuildHistoryRequest{Ref: ref, EarlyExit: true}, nil)
		require.Equal(t, codes.NotFound, status.Code(err))
		require.ErrorContains(t, err, "ref "+ref+" is deleted")
	}
	for _, e := range append(ears, of[refs[0]]) {
		e.stop()
		require.ErrorIs(t, <-e.done, context.Canceled)
	}
	for _, ref := range refs[1:] {
		of[ref].stop()
		require.ErrorIs(t, <-of[ref].done, context.Canceled)
	}
	requirePruned(t, d)
}

// However much a client sends with a build, the records can be listed.
func TestTheRecordOfAnOversizedRequestCanBeListed(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	c := controlpb.NewControlClient(dial(t, d.Addr))
	const limit = 16 << 20 // of a message
	_, err := c.Solve(t.Context(), &controlpb.SolveRequest{
		Ref: bkclient.NewRef(), Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": strings.Repeat("x", limit-200)},
	})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "larger than max")
	lines := strings.Split(strings.TrimSpace(d.MustBuildctl(t, "debug", "histories", "--format={{len .Record.FrontendAttrs}}").Stdout), "\n")
	require.Len(t, lines, 1)
	d.MustBuildctl(t, "prune-histories")
}

// Names of files are bytes. A step that fails over one that is no text is shown and recorded like others.
func TestABuildWithBytesThatAreNoTextIsToldAndRecorded(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	ref, result := recorded(t, d, dockerfile(t,
		"FROM busybox AS files", `RUN mkdir -p "/a/$(printf '\344')"`,
		"FROM busybox", `RUN mkdir /b && touch "/b/$(printf '\344')"`, "COPY --from=files /a/ /b/"))
	require.Equal(t, 1, result.Code)
	const message = "cannot copy to non-directory: /b/\uFFFD"
	require.Contains(t, result.Stderr, "ERROR: "+message, "the step has failed")
	require.Contains(t, result.Stderr, "Dockerfile:5", "the place is told")
	require.Contains(t, d.MustBuildctl(t, "debug", "logs", "--progress=plain", ref).Stdout, "ERROR: "+message)
	require.Equal(t, message+"\n", d.MustBuildctl(t, "debug", "histories", "--format={{.Record.Error.Message}}").Stdout)
}
