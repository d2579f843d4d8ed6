package registry_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/session"
)

const limit = 4 << 20

// payload is the only layer of the test image: no archive, but nobody unpacks it here.
var payload = func() []byte {
	b := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func testImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(payload, types.OCILayer))
	require.NoError(t, err)
	return img
}

func push(t *testing.T, ref string, opts ...remote.Option) {
	t.Helper()
	n, err := name.ParseReference(ref)
	require.NoError(t, err)
	require.NoError(t, remote.Write(n, testImage(t), opts...))
}

func parse(t *testing.T, ref string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(ref)
	require.NoError(t, err)
	return reference.TagNameOnly(n)
}

// pull reads manifest and layers of an image and checks them: those of a store if one is given, or
// that there is only the payload.
func pull(t *testing.T, c *registry.Client, ref string, sessions session.Group, want ...*store) {
	t.Helper()
	repo := c.Repository(parse(t, ref), sessions)
	desc, err := repo.Resolve(t.Context())
	require.NoError(t, err)
	data, err := repo.Fetch(t.Context(), desc, limit)
	require.NoError(t, err)
	m, err := v1.ParseManifest(bytes.NewReader(data))
	require.NoError(t, err)
	for _, l := range m.Layers {
		expected := payload
		for _, s := range want {
			expected, err = content.ReadBlob(t.Context(), s, layerDesc(l))
			require.NoError(t, err)
		}
		require.True(t, bytes.Equal(expected, readLayer(t, repo, layerDesc(l), 0)))
	}
}

func layerDesc(d v1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}

func payloadDesc() ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(payload), Size: int64(len(payload)),
	}
}

func readLayer(t *testing.T, repo *registry.Repository, desc ocispec.Descriptor, offset int64) []byte {
	t.Helper()
	rc, err := repo.Source(event.Scope{}).Open(t.Context(), desc, offset)
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	return data
}

func TestPullFromRealRegistry(t *testing.T) {
	t.Run("over http on a loopback address without configuration", func(t *testing.T) {
		s := registrytest.Start(t, registrytest.Options{})
		push(t, s.Addr+"/a/b:1")
		pull(t, registry.New(registry.Config{}), s.Addr+"/a/b:1", nil)
	})
	t.Run("a layer from an offset", func(t *testing.T) {
		s := registrytest.Start(t, registrytest.Options{})
		push(t, s.Addr+"/a/b:1")
		repo := registry.New(registry.Config{}).Repository(parse(t, s.Addr+"/a/b:1"), nil)
		require.Equal(t, payload[1000:], readLayer(t, repo, payloadDesc(), 1000))
		require.Empty(t, readLayer(t, repo, payloadDesc(), int64(len(payload))))
	})

	secure := registrytest.Start(t, registrytest.Options{TLS: true, Users: map[string]string{"ann": "pw"}})
	insecure := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	push(t, secure.Addr+"/a/b:1", remote.WithTransport(insecure),
		remote.WithAuth(&authn.Basic{Username: "ann", Password: "pw"}))
	users := fakeSessions{"s1": {user: "ann", secret: "pw"}, "s2": {user: "ann", secret: "old"}, "s3": {}}
	withCA := registry.HostConfig{CAs: []string{secure.CA}, PlainHTTP: new(false)}

	t.Run("over https with its own CA and credentials of the session", func(t *testing.T) {
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: withCA}, Sessions: users})
		pull(t, c, secure.Addr+"/a/b:1", session.IDs{"s1"})
	})
	t.Run("over https with the CA from a folder", func(t *testing.T) {
		dir := t.TempDir()
		copyFile(t, secure.CA, dir+"/ca.crt")
		cfg := registry.HostConfig{TLSConfigDirs: []string{dir, "/nonexistent"}, PlainHTTP: new(false)}
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: cfg}, Sessions: users})
		pull(t, c, secure.Addr+"/a/b:1", session.IDs{"s1"})
	})
	t.Run("over https without a CA if insecure", func(t *testing.T) {
		cfg := registry.HostConfig{Insecure: true}
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: cfg}, Sessions: users})
		pull(t, c, secure.Addr+"/a/b:1", session.IDs{"s1"})
	})
	t.Run("an unknown CA is refused", func(t *testing.T) {
		cfg := registry.HostConfig{PlainHTTP: new(false)}
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: cfg}, Sessions: users})
		_, err := c.Repository(parse(t, secure.Addr+"/a/b:1"), session.IDs{"s1"}).Resolve(t.Context())
		require.ErrorContains(t, err, "certificate signed by unknown authority")
	})
	t.Run("a session with old credentials is passed over for one with good ones", func(t *testing.T) {
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: withCA}, Sessions: users})
		pull(t, c, secure.Addr+"/a/b:1", session.IDs{"gone", "s3", "s2", "s1"})
	})
	t.Run("credentials of one session do not serve another", func(t *testing.T) {
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: withCA}, Sessions: users})
		pull(t, c, secure.Addr+"/a/b:1", session.IDs{"s1"})
		for _, id := range []string{"s2", "s3", "gone"} {
			_, err := c.Repository(parse(t, secure.Addr+"/a/b:1"), session.IDs{id}).Resolve(t.Context())
			require.ErrorContains(t, err, "pull access denied", id)
			require.True(t, registry.IsDenied(err))
			require.NotContains(t, err.Error(), "old")
		}
	})
	t.Run("a certificate file that is missing is named", func(t *testing.T) {
		cfg := registry.HostConfig{CAs: []string{"/nonexistent/ca.pem"}}
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{secure.Addr: cfg}})
		_, err := c.Repository(parse(t, secure.Addr+"/a/b:1"), nil).Resolve(t.Context())
		require.ErrorContains(t, err, "/nonexistent/ca.pem")
	})
}

func TestInsecureFallsBackToHTTP(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	push(t, s.Addr+"/a/b:1")
	cfg := map[string]registry.HostConfig{s.Addr: {Insecure: true}}
	pull(t, registry.New(registry.Config{Hosts: cfg}), s.Addr+"/a/b:1", nil)
}

func TestMirrors(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	push(t, s.Addr+"/proxy/hub/library/b:1")
	refused := "127.0.0.1:1"
	cfg := map[string]registry.HostConfig{
		"docker.io": {Mirrors: []string{refused, s.Addr + "/proxy/hub"}},
	}
	t.Run("are asked in order, with their path", func(t *testing.T) {
		pull(t, registry.New(registry.Config{Hosts: cfg}), "docker.io/library/b:1", nil)
	})
	t.Run("are left for the registry itself when they lack the image", func(t *testing.T) {
		push(t, s.Addr+"/a/b:1")
		empty := registrytest.Start(t, registrytest.Options{})
		cfg := map[string]registry.HostConfig{s.Addr: {Mirrors: []string{empty.Addr}}}
		pull(t, registry.New(registry.Config{Hosts: cfg}), s.Addr+"/a/b:1", nil)
	})
}

func TestErrorsOfResolve(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	c := registry.New(registry.Config{})
	zero := "sha256:" + strings.Repeat("0", 64)
	for name, tc := range map[string]struct{ ref, want string }{
		"a missing image":  {s.Addr + "/library/absent:1", s.Addr + "/library/absent:1: not found"},
		"a missing digest": {s.Addr + "/a@" + zero, s.Addr + "/a@" + zero + ": not found"},
		"a refused connection": {
			"localhost:1/library/x",
			`failed to do request: Head "http://localhost:1/v2/library/x/manifests/latest": dial tcp `,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Repository(parse(t, tc.ref), nil).Resolve(t.Context())
			require.ErrorContains(t, err, tc.want)
		})
	}
}
