package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
)

func TestFewLargeLayersAreCompressedAtATime(t *testing.T) {
	e := newEnv(t, "native")
	write := func(ctx context.Context, size int) (out *bytes.Buffer, end func(), err error) {
		inTurn, end := e.InTurn(ctx, func(w io.Writer) error {
			for left := size; left > 0; left -= min(left, 100<<10) {
				if _, err := w.Write(make([]byte, min(left, 100<<10))); err != nil {
					return err
				}
			}
			return nil
		})
		out = &bytes.Buffer{}
		return out, end, inTurn(out)
	}
	var ends []func()
	for range cache.MaxLarge {
		out, end, err := write(e.ctx, cache.LargeLayer+1)
		require.NoError(t, err)
		require.Equal(t, cache.LargeLayer+1, out.Len())
		ends = append(ends, end)
	}
	_, end, err := write(e.ctx, cache.LargeLayer)
	require.NoError(t, err, "small ones do not wait")
	end()

	gone := errors.New("nobody wants it any more")
	ctx, cancel := context.WithCancelCause(e.ctx)
	waited := make(chan error)
	go func() {
		out, end, err := write(ctx, cache.LargeLayer+1)
		end()
		if out.Len() > cache.LargeLayer {
			t.Error("it did not wait")
		}
		waited <- err
	}()
	cancel(gone)
	require.ErrorIs(t, <-waited, gone)

	go func() {
		_, end, err := write(e.ctx, 3*cache.LargeLayer)
		end()
		waited <- err
	}()
	ends[0]()
	require.NoError(t, <-waited, "the turn of the next comes when another ends")
	ends[1]()
	_, end, err = write(e.ctx, cache.LargeLayer+1)
	require.NoError(t, err)
	end()
}
