//go:build linux

package oci_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
	"github.com/openbuildkit/buildkit/exporter/oci"
)

const (
	epoch = "1767225600"
	// The diff id that existing builders give to a layer of one file with this text.
	mkfileText   = "hello"
	mkfileDiffID = "sha256:f67ba1a5d29d1831073da0ea758253877b985ec9e7cedf61f7235e1319104d6f"
)

func factory(b *exportertest.Bench, v oci.Variant) *oci.Factory {
	return oci.New(v, &image.Store{Content: b.Cache.Content(), Leases: b.Cache.Leases(), Blobs: b.Cache}, b.Sessions)
}

// oneFile is a tree of one layer.
func oneFile(t *testing.T, b *exportertest.Bench) *cache.Ref {
	t.Helper()
	return b.Tree(nil, "mkfile /x", func(dir string) {
		require.NoError(t, os.WriteFile(dir+"/x", []byte("12345"), 0o644))
	})
}

func twoLayers(t *testing.T, b *exportertest.Bench) *cache.Ref {
	t.Helper()
	return b.Tree(oneFile(t, b), "RUN y", func(dir string) {
		require.NoError(t, os.Remove(dir+"/x"))
		require.NoError(t, os.Mkdir(dir+"/d", 0o755))
		require.NoError(t, os.WriteFile(dir+"/d/y", []byte("y"), 0o600))
	})
}

// unpack writes an archive out as the layout that it is.
func unpack(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	for in := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		require.NoError(t, err)
		if h.FileInfo().IsDir() {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, h.Name), 0o755))
			continue
		}
		body, err := io.ReadAll(in)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, h.Name), body, 0o644))
	}
}

func readJSON[T any](t *testing.T, file string) (v T) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}

func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs/sha256", d.Encoded())
}

// check validates every image of a layout.
func check(t *testing.T, dir string) {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	require.NoError(t, err)
	require.NoError(t, validate.Index(idx))
}

func TestOCI(t *testing.T) {
	b := exportertest.New(t, false)
	resp, err := b.Export(factory(b, oci.OCI), map[string]string{
		exporter.AttrEpoch: epoch, image.AttrName: "example.org/a:1,b",
	}, &exporter.Result{Ref: twoLayers(t, b)}, 1)
	require.NoError(t, err)
	require.True(t, b.File.Closed)
	dir := unpack(t, b.File.Bytes())
	check(t, dir)
	require.NoFileExists(t, dir+"/manifest.json")

	idx := readJSON[ocispec.Index](t, dir+"/index.json")
	require.Len(t, idx.Manifests, 2)
	m := idx.Manifests[0]
	require.Equal(t, map[string]string{
		"io.containerd.image.name": "example.org/a:1", ocispec.AnnotationRefName: "1", ocispec.AnnotationCreated: "2026-01-01T00:00:00Z",
	}, m.Annotations)
	require.Equal(t, "docker.io/library/b:latest", idx.Manifests[1].Annotations["io.containerd.image.name"])
	require.Equal(t, &ocispec.Platform{OS: "linux", Architecture: "amd64"}, m.Platform)

	manifest := readJSON[ocispec.Manifest](t, blobFile(dir, m.Digest))
	config := readJSON[ocispec.Image](t, blobFile(dir, manifest.Config.Digest))
	require.Len(t, config.History, 2)
	require.Equal(t, "mkfile /x", config.History[0].CreatedBy)
	require.Equal(t, "buildkit.exporter.image.v0", config.History[1].Comment)
	require.Equal(t, "2026-01-01T00:00:00Z", config.Created.Format("2006-01-02T15:04:05Z07:00"))

	require.Equal(t, m.Digest.String(), resp[exporter.KeyDigest])
	require.Equal(t, manifest.Config.Digest.String(), resp[exporter.KeyConfigDigest])
	require.Equal(t, "example.org/a:1,docker.io/library/b:latest", resp[exporter.KeyImageName])
	raw, err := base64.StdEncoding.DecodeString(resp[exporter.KeyDescriptor])
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.created":"2026-01-01T00:00:00Z"},"platform":{"architecture":"amd64","os":"linux"}}`,
		m.MediaType, m.Digest, m.Size), string(raw))
	require.Equal(t, resp[exporter.KeyDigest], b.File.Meta[exporter.KeyDigest])
	require.Equal(t, []string{
		"exporting layers", "exporting manifest " + m.Digest.String(), "exporting config " + manifest.Config.Digest.String(), "sending tarball",
	}, b.Completed())

	t.Run("umoci unpacks it", func(t *testing.T) {
		rootfs := t.TempDir() + "/bundle"
		out, err := exec.Command("umoci", "unpack", "--image", dir+":1", rootfs).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.FileExists(t, rootfs+"/rootfs/d/y")
		require.NoFileExists(t, rootfs+"/rootfs/x")
	})
	t.Run("no lease is left", func(t *testing.T) {
		all, err := b.Cache.Leases().List(t.Context())
		require.NoError(t, err)
		for _, l := range all {
			require.Contains(t, l.ID, "record-")
		}
	})
}

func TestOCIOfSeveralPlatforms(t *testing.T) {
	b := exportertest.New(t, false)
	ref := oneFile(t, b)
	res := &exporter.Result{Refs: map[string]*cache.Ref{"a": ref, "b": nil}, Metadata: map[string][]byte{
		exporter.KeyPlatforms:     []byte(`{"Platforms":[{"ID":"b","Platform":{"os":"linux","architecture":"arm64"}},{"ID":"a","Platform":{"os":"linux","architecture":"amd64"}}]}`),
		exporter.KeyConfig + "/b": []byte(`{"os":"linux","architecture":"arm64","config":{"User":"b"}}`),
		exporter.KeyConfig + "/a": []byte(`{"os":"linux","architecture":"amd64","config":{"User":"a"}}`),
	}}
	resp, err := b.Export(factory(b, oci.OCI), map[string]string{
		exporter.AttrEpoch: epoch, "annotation.all": "1", "annotation[linux/arm64].arm": "2", "annotation-index.idx": "3",
		"annotation-index-descriptor.top": "4", "annotation-manifest-descriptor.desc": "5",
	}, res, 1)
	require.NoError(t, err)
	require.NotContains(t, resp, exporter.KeyConfigDigest)
	dir := unpack(t, b.File.Bytes())
	check(t, dir)
	top := readJSON[ocispec.Index](t, dir+"/index.json")
	require.Len(t, top.Manifests, 1)
	require.Equal(t, ocispec.MediaTypeImageIndex, top.Manifests[0].MediaType)
	require.Equal(t, map[string]string{"top": "4", ocispec.AnnotationCreated: "2026-01-01T00:00:00Z"}, top.Manifests[0].Annotations)
	idx := readJSON[ocispec.Index](t, blobFile(dir, top.Manifests[0].Digest))
	require.Equal(t, map[string]string{"idx": "3"}, idx.Annotations)
	require.Len(t, idx.Manifests, 2)
	for i, want := range []struct {
		arch, user  string
		annotations map[string]string
		layers      int
	}{
		{"arm64", "b", map[string]string{"all": "1", "arm": "2"}, 0},
		{"amd64", "a", map[string]string{"all": "1"}, 1},
	} {
		d := idx.Manifests[i]
		require.Equal(t, want.arch, d.Platform.Architecture)
		require.Equal(t, map[string]string{"desc": "5"}, d.Annotations)
		m := readJSON[ocispec.Manifest](t, blobFile(dir, d.Digest))
		require.Equal(t, want.annotations, m.Annotations)
		require.Len(t, m.Layers, want.layers)
		require.Equal(t, want.user, readJSON[ocispec.Image](t, blobFile(dir, m.Config.Digest)).Config.User)
	}
}

func TestDocker(t *testing.T) {
	b := exportertest.New(t, false)
	_, err := b.Export(factory(b, oci.Docker), map[string]string{
		exporter.AttrEpoch: epoch, image.AttrName: "example.org/a:1", "oci-mediatypes": "false", "compression": "uncompressed",
		"annotation.no": "x",
	}, &exporter.Result{Ref: oneFile(t, b)}, 1)
	require.NoError(t, err)
	dir := unpack(t, b.File.Bytes())
	file := t.TempDir() + "/a.tar"
	require.NoError(t, os.WriteFile(file, b.File.Bytes(), 0o600))
	out, err := exec.Command("skopeo", "--insecure-policy", "copy", "docker-archive:"+file, "oci:"+t.TempDir()+"/oci:a").CombinedOutput()
	require.NoError(t, err, "%s", out)
	list := readJSON[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, dir+"/manifest.json")
	require.Len(t, list, 1)
	require.Equal(t, []string{"example.org/a:1"}, list[0].RepoTags)
	m := readJSON[ocispec.Manifest](t, blobFile(dir, readJSON[ocispec.Index](t, dir+"/index.json").Manifests[0].Digest))
	require.Equal(t, "application/vnd.docker.distribution.manifest.v2+json", m.MediaType)
	require.Equal(t, "application/vnd.docker.container.image.v1+json", m.Config.MediaType)
	require.Equal(t, "application/vnd.docker.image.rootfs.diff.tar", m.Layers[0].MediaType)
	require.Empty(t, m.Layers[0].Annotations)

	t.Run("refuses several platforms", func(t *testing.T) {
		_, err := b.Export(factory(b, oci.Docker), nil, &exporter.Result{Refs: map[string]*cache.Ref{"a": nil}}, 1)
		require.EqualError(t, err, "docker exporter does not currently support exporting manifest lists")
	})
}

func TestRewrittenTimestampsMakeEqualImages(t *testing.T) {
	var digests []string
	for range 2 {
		b := exportertest.New(t, false)
		resp, err := b.Export(factory(b, oci.OCI), map[string]string{exporter.AttrEpoch: epoch, "rewrite-timestamp": "true"},
			&exporter.Result{Ref: twoLayers(t, b)}, 1)
		require.NoError(t, err)
		check(t, unpack(t, b.File.Bytes()))
		digests = append(digests, resp[exporter.KeyDigest])
		require.Contains(t, b.Completed(), "rewriting layers with source-date-epoch 1767225600 (2026-01-01 00:00:00 +0000 UTC)")
		require.Empty(t, b.Warnings())
	}
	require.Equal(t, digests[0], digests[1])

	t.Run("as existing builders make them", func(t *testing.T) {
		b := exportertest.New(t, false)
		ref := b.Tree(nil, "mkfile /x", func(dir string) { require.NoError(t, os.WriteFile(dir+"/x", []byte(mkfileText), 0o644)) })
		_, err := b.Export(factory(b, oci.OCI), map[string]string{exporter.AttrEpoch: epoch, "rewrite-timestamp": "true"}, &exporter.Result{Ref: ref}, 1)
		require.NoError(t, err)
		dir := unpack(t, b.File.Bytes())
		m := readJSON[ocispec.Manifest](t, blobFile(dir, readJSON[ocispec.Index](t, dir+"/index.json").Manifests[0].Digest))
		require.Equal(t, epoch, m.Layers[0].Annotations["buildkit/rewritten-timestamp"])
		cfg := readJSON[ocispec.Image](t, blobFile(dir, m.Config.Digest))
		require.Equal(t, mkfileDiffID, cfg.RootFS.DiffIDs[0].String())
	})
	t.Run("without an epoch there is a warning", func(t *testing.T) {
		b := exportertest.New(t, false)
		_, err := b.Export(factory(b, oci.OCI), map[string]string{"rewrite-timestamp": "true"}, &exporter.Result{Ref: oneFile(t, b)}, 1)
		require.NoError(t, err)
		require.Equal(t, []string{"rewrite-timestamp is specified, but no source-date-epoch was found"}, b.Warnings())
	})
}

// exportStore is the client's store of exported images.
type exportStore struct{ content.Store }

func (s exportStore) Register(srv *grpc.Server) {
	contentapi.RegisterContentServer(srv, contentserver.New(s.Store))
}

func TestAClientThatHasTheImageGetsNothing(t *testing.T) {
	for _, v := range []oci.Variant{oci.OCI, oci.Docker} {
		b := exportertest.New(t, false)
		b.File.Had = true
		resp, err := b.Export(factory(b, v), nil, &exporter.Result{Ref: oneFile(t, b)}, 1)
		require.NoError(t, err)
		require.Equal(t, resp[exporter.KeyDigest], b.File.Meta[exporter.KeyDigest], "by which it knows")
		require.Zero(t, b.File.Len())
	}
}

func TestOlderVersionsChangeTheMediaTypes(t *testing.T) {
	for _, tc := range []struct {
		variant oci.Variant
		version compat.Version
		want    string
	}{
		{oci.OCI, compat.V30, ocispec.MediaTypeImageManifest},
		{oci.OCI, compat.V20, ocispec.MediaTypeImageManifest},
		{oci.OCI, compat.V10, ocispec.MediaTypeImageManifest},
		{oci.Docker, compat.V30, ocispec.MediaTypeImageManifest},
		{oci.Docker, compat.V20, "application/vnd.docker.distribution.manifest.v2+json"},
		{oci.Docker, compat.V10, "application/vnd.docker.distribution.manifest.v2+json"},
	} {
		b := exportertest.New(t, false)
		inst, err := factory(b, tc.variant).Resolve(nil, tc.version)
		require.NoError(t, err)
		_, err = inst.Export(t.Context(), &exporter.Result{Ref: oneFile(t, b)}, b.Env(1))
		require.NoError(t, err)
		idx := readJSON[ocispec.Index](t, unpack(t, b.File.Bytes())+"/index.json")
		require.Equal(t, tc.want, idx.Manifests[0].MediaType)
	}
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	cs, err := local.NewStore(dir)
	require.NoError(t, err)
	b := exportertest.New(t, false, exportStore{cs})
	for range 2 { // the second time all is there
		resp, err := b.Export(factory(b, oci.OCI), map[string]string{"tar": "false", exporter.AttrEpoch: epoch}, &exporter.Result{Ref: twoLayers(t, b)}, 1)
		require.NoError(t, err)
		m := readJSON[ocispec.Manifest](t, blobFile(dir, digest.Digest(resp[exporter.KeyDigest])))
		require.FileExists(t, blobFile(dir, m.Config.Digest))
		for _, l := range m.Layers {
			require.FileExists(t, blobFile(dir, l.Digest))
		}
	}
	require.NotContains(t, b.Completed(), "sending tarball")
}

// oneWriter is a store that tells of blobs with two writers at once.
type oneWriter struct {
	content.Store

	mu     sync.Mutex
	active map[string]bool
	twice  []string
}

func (s *oneWriter) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var opt content.WriterOpts
	for _, o := range opts {
		if err := o(&opt); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	if s.active[opt.Ref] {
		s.twice = append(s.twice, opt.Ref)
	}
	s.active[opt.Ref] = true
	s.mu.Unlock()
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		s.done(opt.Ref)
		return nil, err
	}
	return &oneWriterWriter{w, func() { s.done(opt.Ref) }}, nil
}

func (s *oneWriter) done(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[ref] = false
}

type oneWriterWriter struct {
	content.Writer
	done func()
}

func (w *oneWriterWriter) Close() error {
	defer w.done()
	return w.Writer.Close()
}

func TestALayerThatIsThereTwiceIsSentToALayoutOnce(t *testing.T) {
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	store := &oneWriter{Store: cs, active: map[string]bool{}}
	b := exportertest.New(t, false, exportStore{store})
	// Twins change nothing, each a second time: their layers are empty and equal.
	ref := oneFile(t, b)
	for range 3 * 4 {
		ref = b.Tree(ref, "RUN true", func(string) {})
	}
	resp, err := b.Export(factory(b, oci.OCI), map[string]string{"tar": "false"}, &exporter.Result{Ref: ref}, 1)
	require.NoError(t, err)
	data, err := content.ReadBlob(t.Context(), cs, ocispec.Descriptor{Digest: digest.Digest(resp[exporter.KeyDigest])})
	require.NoError(t, err)
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(data, &m))
	require.Equal(t, m.Layers[1].Digest, m.Layers[2].Digest)
	require.Empty(t, store.twice)
}

func TestErrors(t *testing.T) {
	for attr, want := range map[string]string{
		"compression=lzw":           "unsupported compression type lzw",
		"compression-level=much":    `non-integer value much specified for compression-level: strconv.ParseInt: parsing "much": invalid syntax`,
		"annotation-blah.k=v":       "unrecognized annotation type blah",
		"annotation[a/b/c/d/e].k=v": "invalid platform of annotation",
		"name=UPPER":                `failed to parse image name "UPPER"`,
		"tar=often":                 "non-bool value specified for tar",
		"source-date-epoch=x":       "invalid source-date-epoch",
	} {
		k, v, _ := strings.Cut(attr, "=")
		_, err := oci.New(oci.OCI, nil, nil).Resolve(map[string]string{k: v}, compat.Current)
		require.ErrorContains(t, err, want)
	}
	_, err := oci.New(oci.OCI, nil, nil).Resolve(map[string]string{"compression": "estargz", "oci-mediatypes": "false"}, compat.Current)
	require.EqualError(t, err, `exporter option "compression=estargz" conflicts with "oci-mediatypes=false"`)

	b := exportertest.New(t, false)
	for name, tc := range map[string]struct {
		attrs map[string]string
		multi bool
		want  string
	}{
		"an annotation of the index of one platform":  {map[string]string{"annotation-index.k": "v"}, false, "index annotations not supported for single platform export"},
		"an annotation of an index in Docker's types": {map[string]string{"annotation-index.k": "v", "oci-mediatypes": "false"}, true, `cannot export annotations with "oci-mediatypes=false"`},
		"an annotation of no platform":                {map[string]string{"annotation[linux/s390x].k": "v"}, true, "invalid annotation: no platform linux/s390x found in source"},
		"a broken config":                             {map[string]string{exporter.KeyConfig: `{"os":"linux","architecture":"amd64","history":{}}`}, false, "failed to parse image config"},
	} {
		t.Run(name, func(t *testing.T) {
			res := &exporter.Result{}
			if tc.multi {
				res = &exporter.Result{Refs: map[string]*cache.Ref{"a": nil}, Metadata: map[string][]byte{
					exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"a","Platform":{"os":"linux","architecture":"amd64"}}]}`),
				}}
			}
			_, err := b.Export(factory(b, oci.OCI), tc.attrs, res, 1)
			require.ErrorContains(t, err, tc.want)
		})
	}
}
