//go:build linux

package image_test

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
)

func factory(b *exportertest.Bench) *image.Factory {
	store := &image.Store{Content: b.Cache.Content(), Leases: b.Cache.Leases(), Blobs: b.Cache}
	return image.New(store, registry.New(registry.Config{}))
}

func oneFile(t *testing.T, b *exportertest.Bench) *cache.Ref {
	t.Helper()
	return b.Tree(nil, "mkfile /x", func(dir string) { require.NoError(t, os.WriteFile(dir+"/x", []byte("x"), 0o644)) })
}

func TestImageWithoutPush(t *testing.T) {
	b := exportertest.New(t, false)
	resp, err := b.Export(factory(b), map[string]string{image.AttrName: "*", "store": "", "unpack": "false"},
		&exporter.Result{Ref: oneFile(t, b), Metadata: map[string][]byte{exporter.KeyImageName: []byte("x:1")}}, 0)
	require.NoError(t, err)
	require.Equal(t, "x:1", resp[exporter.KeyImageName])
	require.NotEmpty(t, resp[exporter.KeyDigest])
	require.Len(t, b.Completed(), 3)
	for _, attrs := range []map[string]string{{image.AttrName: "UPPER"}, {"push": "true"}} {
		_, err = b.Export(factory(b), attrs, &exporter.Result{}, 0)
		require.NoError(t, err, "a name matters only where it is used")
	}
	require.Equal(t, []string{"nothing is pushed: the image has no name"}, b.Warnings())
}

func TestWhatAnEarlierDaemonWasMakingIsGivenUp(t *testing.T) {
	b := exportertest.New(t, false)
	store := &image.Store{Content: b.Cache.Content(), Leases: b.Cache.Leases(), Blobs: b.Cache}
	opt, err := image.ParseOptions(nil, compat.Current)
	require.NoError(t, err)
	_, err = store.Commit(t.Context(), &exporter.Result{}, opt, b.Env(0))
	require.NoError(t, err)
	others, err := b.Cache.Leases().Create(t.Context(), leases.WithID("theirs"))
	require.NoError(t, err)
	all, err := b.Cache.Leases().List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.NoError(t, store.Recover(t.Context()))
	all, err = b.Cache.Leases().List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, others.ID, all[0].ID)
}

func TestImagePush(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	b := exportertest.New(t, false)
	names := s.Addr + "/a/b:1," + s.Addr + "/c"
	resp, err := b.Export(factory(b), map[string]string{image.AttrName: names, "push": "true"}, &exporter.Result{Ref: oneFile(t, b)}, 0)
	require.NoError(t, err)
	require.Equal(t, names, resp[exporter.KeyImageName])
	check := func(ref string) {
		n, err := name.ParseReference(ref)
		require.NoError(t, err)
		img, err := remote.Image(n)
		require.NoError(t, err)
		require.NoError(t, validate.Image(img))
		got, err := img.Digest()
		require.NoError(t, err)
		require.Equal(t, resp[exporter.KeyDigest], got.String())
	}
	check(s.Addr + "/a/b:1")
	check(s.Addr + "/c:latest")
	require.Contains(t, b.Completed(), "pushing manifest for "+s.Addr+"/c:latest@"+resp[exporter.KeyDigest])

	_, err = b.Export(factory(b), map[string]string{image.AttrName: s.Addr + "/d", "push": "", "push-by-digest": ""}, &exporter.Result{Ref: oneFile(t, b)}, 0)
	require.NoError(t, err)
	require.Contains(t, b.Completed(), "pushing manifest for "+s.Addr+"/d")
}

func TestImagePushToSeveralRegistries(t *testing.T) {
	one, two := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, one.Addr)
	b := exportertest.New(t, false)
	names := []string{"localhost:1/x/y:1", p.Addr + "/a/b:1", "localhost:2/x/y:1", two.Addr + "/a/b:1", p.Addr + "/c/d:1"}
	_, err := b.Export(factory(b), map[string]string{image.AttrName: strings.Join(names, ","), "push": "true"}, &exporter.Result{Ref: oneFile(t, b)}, 0)
	require.ErrorContains(t, err, "failed to push localhost:1/x/y:1: ", "the first in the order of the names")
	for _, ref := range []string{one.Addr + "/a/b:1", two.Addr + "/a/b:1", one.Addr + "/c/d:1"} {
		n, err := name.ParseReference(ref)
		require.NoError(t, err)
		img, err := remote.Image(n)
		require.NoError(t, err, "what another registry does changes nothing")
		require.NoError(t, validate.Image(img))
	}
	var sent, mounted int
	for _, r := range p.Requests() {
		if strings.HasPrefix(r, "PUT ") && strings.Contains(r, "/blobs/") {
			sent++
		}
		if strings.HasSuffix(r, " from a/b") {
			mounted++
		}
	}
	require.Equal(t, 2, sent, "a layer and a config, once to a registry")
	require.Equal(t, 2, mounted)
}

func TestImageErrors(t *testing.T) {
	for attr, want := range map[string]string{
		"push=often":             `non-bool value specified for push: strconv.ParseBool: parsing "often": invalid syntax`,
		"compression=lzw":        "unsupported compression type lzw",
		"compression-level=much": `non-integer value much specified for compression-level: strconv.ParseInt: parsing "much": invalid syntax`,
	} {
		k, v, _ := strings.Cut(attr, "=")
		_, err := image.New(nil, nil).Resolve(map[string]string{k: v}, compat.Current)
		require.EqualError(t, err, want)
	}
	_, err := image.New(nil, nil).Resolve(map[string]string{"unpack": "true", "rewrite-timestamp": "true"}, compat.Current)
	require.EqualError(t, err, `exporter option "rewrite-timestamp" conflicts with "unpack"`)

	b := exportertest.New(t, false)
	for attrs, want := range map[string]string{
		"name=localhost:1/x/y:1 push=true":                     `failed to push localhost:1/x/y:1: failed to do request: Head "http://localhost:1/v2/x/y/blobs/sha256:`,
		"name=localhost:1/x/y:1 push=true push-by-digest=true": "failed to push localhost:1/x/y:1: can't push tagged ref localhost:1/x/y:1 by digest",
		"name=UPPER push=true":                                 "failed to push UPPER: invalid reference format",
	} {
		m := map[string]string{}
		for _, kv := range strings.Fields(attrs) {
			k, v, _ := strings.Cut(kv, "=")
			m[k] = v
		}
		_, err := b.Export(factory(b), m, &exporter.Result{}, 0)
		require.ErrorContains(t, err, want)
	}
}
