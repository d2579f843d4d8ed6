package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
)

// With every twentieth request spoiled no push and no pull fails, and what arrives is whole. The
// more and the larger ones of `make soak` go through the daemon, see hack/e2e.
func TestFaultsOfRegistriesAreOvercome(t *testing.T) {
	rounds, seed := 3, uint64(1)
	if os.Getenv("BUILDKIT_TEST_SOAK") != "" {
		rounds = 200
	}
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	requests := 0
	for round := range rounds {
		func() {
			c := registry.New(registry.Config{})
			defer c.CloseIdle()
			cs := newContent(t)
			desc := cs.image(5)
			ref := parse(t, p.Addr+"/x/y"+string(rune('a'+round%26))+":1")
			p.SetFault(registrytest.Some(seed+uint64(round), 20))
			require.NoError(t, c.Repository(ref, nil).Push(t.Context(), desc, cs, event.Scope{}), "round %d", round)
			pull(t, c, ref.String(), nil, cs)
			p.SetFault(nil)

			pull(t, registry.New(registry.Config{}), ref.String(), nil, cs)
			to, src := newContent(t), c.Repository(ref, nil).Source(event.Scope{})
			whole, err := blob.Transfer(t.Context(), to, cs.layers(desc)[0], src)
			require.NoError(t, err)
			require.True(t, whole)
		}()
		requests += len(p.Requests())
	}
	t.Logf("%d rounds, %d requests, %d spoiled", rounds, requests, p.Injected())
	require.Positive(t, p.Injected())
}

// Each fault, at each request of a push and of a pull, alone.
func TestEachFaultIsOvercomeWhereverItStrikes(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	cs := newContent(t)
	desc := cs.image(1)
	const requests = 2*3 + 2 + 3 // layer and config, manifest; manifest and layer
	var wg sync.WaitGroup
	for fault := registrytest.TooMany; fault <= registrytest.Truncated; fault++ {
		for at := range requests {
			p := registrytest.StartProxy(t, s.Addr)
			n := 0
			p.SetFault(func(*http.Request) registrytest.Fault {
				if n++; n == at+1 {
					return fault
				}
				return registrytest.None
			})
			wg.Go(func() {
				c := registry.New(registry.Config{})
				defer c.CloseIdle()
				repo := c.Repository(parse(t, fmt.Sprintf("%s/f%d/y%d:1", p.Addr, fault, at)), nil)
				if err := pushAndRead(t.Context(), repo, cs, desc); err != nil {
					t.Errorf("%s at request %d: %v", fault, at, err)
				}
				if p.Injected() != 1 {
					t.Errorf("%s at request %d did not happen", fault, at)
				}
			})
		}
	}
	wg.Wait()
}

// pushAndRead pushes an image and reads its manifest and first layer back.
func pushAndRead(ctx context.Context, repo *registry.Repository, cs *store, desc ocispec.Descriptor) error {
	if err := repo.Push(ctx, desc, cs, event.Scope{}); err != nil {
		return err
	}
	got, err := repo.Resolve(ctx)
	if err != nil {
		return err
	}
	if got.Digest != desc.Digest {
		return fmt.Errorf("resolved to %s", got.Digest)
	}
	if _, err := repo.Fetch(ctx, got, limit); err != nil {
		return err
	}
	layer := cs.layers(desc)[0]
	rc, err := repo.Source(event.Scope{}).Open(ctx, layer, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err == nil && digest.FromBytes(data) != layer.Digest {
		err = errors.New("other bytes")
	}
	return err
}
