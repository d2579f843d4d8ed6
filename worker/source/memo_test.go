package source_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker/source"
)

func TestOnce(t *testing.T) {
	t.Run("computes once for many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var m source.Memo
			var runs atomic.Int32
			for range 10 {
				go func() {
					v, err := source.Once(t.Context(), &m, "k", func(context.Context) (int, error) {
						runs.Add(1)
						<-time.After(time.Second)
						return 7, nil
					})
					if err != nil || v != 7 {
						t.Error(v, err)
					}
				}()
			}
			<-time.After(2 * time.Second)
			require.EqualValues(t, 1, runs.Load())
		})
	})
	t.Run("forgets failures", func(t *testing.T) {
		var m source.Memo
		boom := errors.New("boom")
		_, err := source.Once(t.Context(), &m, "k", func(context.Context) (int, error) { return 0, boom })
		require.ErrorIs(t, err, boom)
		v, err := source.Once(t.Context(), &m, "k", func(context.Context) (int, error) { return 1, nil })
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
	t.Run("goes on for those who stay and ends with the last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var m source.Memo
			ended := make(chan error, 1)
			wait := func(ctx context.Context) {
				_, _ = source.Once(ctx, &m, "k", func(ctx context.Context) (int, error) {
					<-ctx.Done()
					ended <- context.Cause(ctx)
					return 0, context.Cause(ctx)
				})
			}
			first, leaveFirst := context.WithCancel(t.Context())
			second, leaveSecond := context.WithCancel(t.Context())
			go wait(first)
			go wait(second)
			synctest.Wait()
			leaveFirst()
			synctest.Wait()
			require.Empty(t, ended)
			leaveSecond()
			require.ErrorIs(t, <-ended, context.Canceled)
		})
	})
	t.Run("without a memo computes every time", func(t *testing.T) {
		runs := 0
		for range 2 {
			_, err := source.Once(t.Context(), nil, "k", func(context.Context) (int, error) { runs++; return 0, nil })
			require.NoError(t, err)
		}
		require.Equal(t, 2, runs)
	})
}
