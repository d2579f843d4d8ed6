package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/session"
)

// image is one of n layers of random bytes, each of its own.
func (s *store) image(n int) ocispec.Descriptor {
	s.t.Helper()
	cfg := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	for i := range n {
		m.Layers = append(m.Layers, s.add(ocispec.MediaTypeImageLayer, slices.Concat(payload[i<<10:(i+64)<<10], []byte(s.t.Name()))))
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, m.Layers[i].Digest)
	}
	m.Config = s.addJSON(ocispec.MediaTypeImageConfig, cfg)
	m.SchemaVersion = 2
	return s.addJSON(m.MediaType, m)
}

// layers returns those of an image.
func (s *store) layers(desc ocispec.Descriptor) []ocispec.Descriptor {
	s.t.Helper()
	data, err := content.ReadBlob(s.t.Context(), s, desc)
	require.NoError(s.t, err)
	var m ocispec.Manifest
	require.NoError(s.t, json.Unmarshal(data, &m))
	return m.Layers
}

// lazy is a store whose layers are all in other repositories, and cannot be read here if absent.
type lazy struct {
	content.Provider
	at     []string
	absent bool

	mu     sync.Mutex
	pushed []string
}

func (l *lazy) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if l.absent && images.IsLayerType(desc.MediaType) {
		return nil, errors.New("no byte of a layer is needed")
	}
	return l.Provider.ReaderAt(ctx, desc)
}

func (l *lazy) Repositories(context.Context, digest.Digest) []string { return l.at }

func (l *lazy) Pushed(_ context.Context, dgst digest.Digest, repository string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushed = append(l.pushed, repository+"@"+dgst.String())
}

// count returns how many requests begin with each of the methods and contain the text.
func count(requests []string, method, text string) int {
	n := 0
	for _, r := range requests {
		if strings.HasPrefix(r, method+" ") && strings.Contains(r, text) {
			n++
		}
	}
	return n
}

func TestAnUnchangedPushAsksOnceForEachBlob(t *testing.T) {
	const layers = 20
	s := registrytest.Start(t, registrytest.Options{Users: map[string]string{"ann": "pw"}})
	p := registrytest.StartProxy(t, s.Addr)
	cs := newContent(t)
	desc := cs.image(layers)
	push := func(c *registry.Client) []string {
		err := c.Repository(parse(t, p.Addr+"/x/y:1"), session.IDs{"s"}).Push(t.Context(), desc, cs, event.Scope{})
		require.NoError(t, err)
		return p.Requests()
	}
	c := registry.New(registry.Config{Sessions: fakeSessions{"s": {user: "ann", secret: "pw"}}})

	first := push(c)
	require.Equal(t, layers+1, count(first, "HEAD", "/blobs/")-1, "one more to learn how to authorize")
	require.Equal(t, layers+1, count(first, "POST", "/uploads/"))
	require.Equal(t, layers+1, count(first, "PUT", "/uploads/"))
	require.Len(t, first, 3*(layers+1)+1+2)

	again := push(c)
	require.Equal(t, layers+1, count(again, "HEAD", "/blobs/"))
	require.Equal(t, 1, count(again, "HEAD", "/manifests/"))
	require.Len(t, again, layers+1+1)

	restarted := push(registry.New(registry.Config{Sessions: fakeSessions{"s": {user: "ann", secret: "pw"}}}))
	require.Len(t, restarted, layers+1+1+1, "only the first one is refused at first")
}

func TestMount(t *testing.T) {
	const layers = 6
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	c := registry.New(registry.Config{})
	push := func(desc ocispec.Descriptor, from content.Provider, ref string) []string {
		require.NoError(t, c.Repository(parse(t, p.Addr+ref), nil).Push(t.Context(), desc, from, event.Scope{}))
		return p.Requests()
	}
	cs := newContent(t)
	desc := cs.image(layers)
	push(desc, cs, "/a/base:1")

	t.Run("takes layers from another repository, in a request each and without a byte", func(t *testing.T) {
		from := &lazy{Provider: cs, at: []string{"elsewhere.test/a/base", p.Addr + "/a/base"}, absent: true}
		requests := push(desc, from, "/b/app:1")
		require.Equal(t, layers+1, count(requests, "POST", "/v2/b/app/blobs/uploads/ from a/base"))
		require.Zero(t, count(requests, "PUT", "/blobs/"))
		require.Len(t, requests, layers+1+2)
		pull(t, c, p.Addr+"/b/app:1", nil, cs)
		p.Requests()
		require.Contains(t, from.pushed, p.Addr+"/b/app@"+desc.Digest.String())
		require.Len(t, from.pushed, layers+2)
	})
	t.Run("is not tried where the blob should be already", func(t *testing.T) {
		from := &lazy{Provider: cs, at: []string{p.Addr + "/a/base", p.Addr + "/b/app"}, absent: true}
		requests := push(desc, from, "/b/app:2")
		require.Zero(t, count(requests, "POST", ""))
		require.Equal(t, layers+1, count(requests, "HEAD", "/blobs/"))
	})
	t.Run("is tried where it should be and is not", func(t *testing.T) {
		from := &lazy{Provider: cs, at: []string{p.Addr + "/a/base", p.Addr + "/b/lost"}, absent: true}
		requests := push(desc, from, "/b/lost:1")
		require.Equal(t, layers+1, count(requests, "POST", "from a/base"))
	})
	t.Run("is given up for a repository that does not have them", func(t *testing.T) {
		from := &lazy{Provider: cs, at: []string{p.Addr + "/a/none"}}
		requests := push(desc, from, "/b/sent:1")
		require.Equal(t, 1, count(requests, "POST", "from a/none"))
		require.Equal(t, 1, count(requests, "DELETE", "/blobs/uploads/"), "the upload that it began is ended")
		require.Equal(t, layers+1, count(requests, "PUT", "/blobs/"))
	})
}

func TestMountAsksForTheRightToReadTheOtherRepository(t *testing.T) {
	tokens := registrytest.StartTokens(t, registrytest.TokenOptions{
		Users: map[string]string{"ann": "pw"},
		Rights: func(user, repository string) string {
			switch {
			case user != "ann" || repository == "secret/base":
				return ""
			case repository == "a/base":
				return "pull"
			}
			return "pull,push"
		},
	})
	s := registrytest.Start(t, registrytest.Options{Tokens: tokens})
	sessions := fakeSessions{"s": {user: "ann", secret: "pw"}}
	cs := newContent(t)
	desc := cs.image(4)
	push := func(ref string, from content.Provider) {
		t.Helper()
		c := registry.New(registry.Config{Sessions: sessions})
		require.NoError(t, c.Repository(parse(t, s.Addr+ref), session.IDs{"s"}).Push(t.Context(), desc, from, event.Scope{}))
	}
	push("/own/base:1", cs)
	require.Equal(t, []string{"ann repository:own/base:pull,push"}, tokens.Issued(), "a token for all of the push")

	push("/own/app:1", &lazy{Provider: cs, at: []string{s.Addr + "/own/base"}, absent: true})
	require.ElementsMatch(t, []string{
		"ann repository:own/app:pull,push repository:own/base:pull", "ann repository:own/app:pull,push",
	}, tokens.Issued(), "and one for the mounts")

	push("/own/other:1", &lazy{Provider: cs, at: []string{s.Addr + "/secret/base"}})
	require.ElementsMatch(t, []string{
		"ann repository:own/other:pull,push repository:secret/base:pull", "ann repository:own/other:pull,push",
	}, tokens.Issued(), "without the right it is sent")
}

func TestTheErrorOfAPushIsThatOfTheFirstBlobRefused(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	cs := newContent(t)
	desc := cs.image(12)
	layers := cs.layers(desc)
	for range 10 {
		from := &refusing{Provider: cs, refuse: map[digest.Digest]bool{}}
		for i, l := range layers {
			from.refuse[l.Digest] = i >= 3
		}
		err := registry.New(registry.Config{}).Repository(parse(t, p.Addr+"/x/y:1"), nil).Push(t.Context(), desc, from, event.Scope{})
		require.EqualError(t, err, "cannot read "+layers[3].Digest.String())
	}
}

// refusing is a provider that lacks some blobs.
type refusing struct {
	content.Provider
	refuse map[digest.Digest]bool
}

func (r *refusing) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if r.refuse[desc.Digest] {
		return nil, fmt.Errorf("cannot read %s", desc.Digest)
	}
	return r.Provider.ReaderAt(ctx, desc)
}
