package registry

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneAtATimeHasATurn(t *testing.T) {
	var ts turns
	var all sync.WaitGroup
	busy := map[string]*int{"a": new(int), "b": new(int)}
	for i := range 100 {
		name := []string{"a", "b"}[i%2]
		all.Go(func() {
			done, err := ts.take(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
			if *busy[name]++; *busy[name] != 1 {
				t.Errorf("%d have the turn of %s", *busy[name], name)
			}
			*busy[name]--
		})
	}
	all.Wait()
	require.Empty(t, ts.all, "nothing is kept")

	done, err := ts.take(t.Context(), "a")
	require.NoError(t, err)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	_, err = ts.take(ctx, "a")
	require.ErrorIs(t, err, gone)
	done()
	require.Empty(t, ts.all)
}
