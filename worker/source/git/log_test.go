//go:build linux

package git

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
)

func TestLogsShowNoCredentials(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := newLineWriter(&out, "/state/1/fs")
	for _, part := range []string{"From https://us", "er:pw@h/r\nprogress 1%\rprogress 2%\r", "done\nCloning into '/state/1/fs/m'...\nlast ssh://git@h/"} {
		_, err := l.Write([]byte(part))
		require.NoError(t, err)
	}
	l.flush()
	require.Equal(t, "From https://xxxxx@h/r\ndone\nCloning into 'm'...\nlast ssh://git@h/\n", out.String())
}

func TestProgressIsShownOfWhatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := newLineWriter(&out, "")
		say := func(text string, after time.Duration) {
			<-time.After(after)
			_, err := l.Write([]byte(text))
			require.NoError(t, err)
		}
		say("remote: Counting objects: 100% (9/9), done.        \n", time.Second)
		say("Receiving objects:  10% (1/10)\r", time.Second)
		say("From http://h/r\n", 0)
		say("Receiving objects:  20% (2/10), 3.00 MiB | 1.00 MiB/s\r", 4*time.Second)
		say("Receiving objects:  30% (3/10), 4.00 MiB | 1.00 MiB/s\r", time.Second)
		say("Receiving objects: 100% (10/10), 9.00 MiB | 1.00 MiB/s, done.\n", 5*time.Second)
		say("Resolving deltas: 100% (1/1), done.\n * [new ref]         abc        -> refs/buildkit/abc\n", 0)
		require.Equal(t, `From http://h/r
Receiving objects:  20% (2/10), 3.00 MiB | 1.00 MiB/s
Receiving objects: 100% (10/10), 9.00 MiB | 1.00 MiB/s, done.
 * [new ref]         abc
`, out.String())
	})
}

func TestAJobThatWaitsForTheRepositoryCanLeave(t *testing.T) {
	t.Parallel()
	var l locks
	steps := 0
	waiting := func() func(error) error {
		steps++
		return func(err error) error { return err }
	}
	release, err := l.acquire(t.Context(), "k", waiting)
	require.NoError(t, err)
	require.Zero(t, steps)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	_, err = l.acquire(ctx, "k", waiting)
	require.ErrorIs(t, err, gone)
	require.Equal(t, 1, steps)
	release()
	release, err = l.acquire(t.Context(), "k", waiting)
	require.NoError(t, err)
	release()
	require.Empty(t, l.held)
	require.Equal(t, 1, steps)
}

func TestWaitingForAnotherStepIsShown(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	b := newBench(t)
	u := serve(t, root).url("r")
	i := b.instance(u, "main", nil, nil)
	_, _, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	waits := make(chan event.Status, 8)
	i.env.Scope = event.NewScope(event.SinkFunc(func(batch event.Batch) {
		for _, st := range batch.Statuses {
			waits <- st
		}
	}), "sha256:v")
	other := b.instance(u, "main", nil, nil)
	_, _, err = other.Key(t.Context(), 0)
	require.NoError(t, err)
	repo, err := other.open(t.Context())
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		ref, err := i.Fetch(context.WithoutCancel(t.Context()))
		done <- errors.Join(err, ref.Release(context.Background()))
	}()
	st := <-waits
	require.Equal(t, "waiting for the repository, which another step uses", st.ID)
	require.Nil(t, st.Completed)
	repo.closeWith(t.Context(), &err)
	require.NoError(t, err)
	require.NotNil(t, (<-waits).Completed)
	require.NoError(t, <-done)
}
