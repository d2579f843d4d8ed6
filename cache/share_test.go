package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
)

// Who waits along for a layer is not told of the client of another, but has its own asked.
func TestAFetchThatAnotherClientFailsIsBegunAgain(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	asked, release := make(chan struct{}), make(chan struct{})
	var attempts atomic.Int32
	r.open = func(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
		if attempts.Add(1) == 1 {
			close(asked)
			<-release
			return nil, session.BlameAll([]string{"a"}, errors.New("a may not"))
		}
		return io.NopCloser(bytes.NewReader(r.blobs[desc.Digest][offset:])), nil
	}
	access := func(id string) cache.Access {
		acc := r.access()
		acc.Sessions = session.IDs{id}
		return acc
	}
	aDone, bDone := make(chan error, 1), make(chan error, 1)
	go func() { aDone <- ref.Realise(e.ctx, access("a")) }()
	<-asked
	waiting := e.Waiters()
	go func() { bDone <- ref.Realise(e.ctx, access("b")) }()
	for e.Waiters() == waiting {
		runtime.Gosched()
	}
	close(release)
	require.ErrorContains(t, <-aDone, "a may not")
	require.NoError(t, <-bDone)
	e.release(ref)
}
