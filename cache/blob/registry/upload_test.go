package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
)

// bytesAt is a content.ReaderAt of a text.
type bytesAt struct{ *bytes.Reader }

func (bytesAt) Close() error { return nil }

func TestAnUploadThatNobodyTakesIsBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		desc := ocispec.Descriptor{Size: 10}
		body := newSentBody(bytesAt{bytes.NewReader(make([]byte, 10))}, 10, time.Minute, newMeter(event.Scope{}, desc), cancel)
		defer body.Close()
		for range 3 {
			time.Sleep(50 * time.Second) //nolint:forbidigo // moves the clock of the bubble
			_, err := io.ReadFull(body, make([]byte, 3))
			require.NoError(t, err)
		}
		require.NoError(t, ctx.Err(), "slow is not dead")
		time.Sleep(time.Minute + time.Second) //nolint:forbidigo // as above
		require.ErrorIs(t, context.Cause(ctx), errStalled)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		body := newSentBody(bytesAt{bytes.NewReader(nil)}, 0, time.Minute, newMeter(event.Scope{}, ocispec.Descriptor{}), cancel)
		_, err := io.ReadAll(body)
		require.NoError(t, err)
		time.Sleep(time.Hour) //nolint:forbidigo // as above
		require.NoError(t, ctx.Err(), "once all is sent the registry may take its time")
	})
}

func TestUploadsAreMadeAgainWhereThatMayHelp(t *testing.T) {
	p := &push{}
	for name, tc := range map[string]struct {
		err      error
		n        int
		again    bool
		min, max time.Duration
	}{
		"a broken connection":            {err: syscall.EPIPE, n: 1, again: true, max: time.Second},
		"silence":                        {err: errStalled, n: 2, again: true, max: time.Second},
		"a wait that the registry names": {err: &busyError{errors.New("429"), 7 * time.Second}, n: 1, again: true, min: 7 * time.Second, max: 7 * time.Second},
		"a wait beyond reason":           {err: &busyError{errors.New("429"), time.Hour}, n: 1},
		"the last attempt":               {err: syscall.EPIPE, n: attempts},
		"a refusal":                      {err: docker.ErrInvalidAuthorization, n: 1},
		"a blob that cannot be read":     {err: errors.New("input/output error"), n: 1},
		"a registry that nobody runs":    {err: syscall.ECONNREFUSED, n: 1},
		"what has succeeded":             {n: 1},
	} {
		t.Run(name, func(t *testing.T) {
			wait, again := p.uploadAgain(t.Context(), tc.err, tc.n)
			require.Equal(t, tc.again, again)
			if again {
				require.GreaterOrEqual(t, wait, tc.min)
				require.LessOrEqual(t, wait, max(tc.max, tc.min))
			}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, again := p.uploadAgain(ended, syscall.EPIPE, 1)
	require.False(t, again, "nobody waits any more")
}
