package image

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

var (
	linux   = platforms.MustParse("linux/amd64")
	newYear = time.Unix(1767225600, 0).UTC() // 2026-01-01
)

func gzipLayer(dgst, diffID string, size int64, annotations map[string]string) cache.Layer {
	return cache.Layer{DiffID: digest.Digest("sha256:" + diffID), Descriptor: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest("sha256:" + dgst), Size: size, Annotations: annotations,
	}}
}

// The digests below are those that existing builders give to the same images: what is in a config
// or manifest, the order of its fields and every blank are part of what users compare.
func TestKnownDigests(t *testing.T) {
	base := gzipLayer("80c208cf95f1b2f0ac43c3daa92e2d5be7df993e888ec9ca1d48a7feddc25395",
		"8ba0cba46f3e966117bba1b095806f45866aa15487b555ca0019f07f8bde713c", 1227523, nil)
	fileA := gzipLayer("5610750b436766fcf88b38baf6287c606abdf0d43326ff39011d1c0580740392",
		"26eeffe77cda15ee6c6abc19dc4cbe4e53e26392a88ffd9cad4801866e38835f", 105, nil)
	rewritten := map[string]string{annotationRewritten: "1767225600"}
	mkfile := gzipLayer("c1f4412cf6fe0865583dd04f8b6953999902034a8d79adb268033fcaabebf990",
		"f67ba1a5d29d1831073da0ea758253877b985ec9e7cedf61f7235e1319104d6f", 100, rewritten)
	mkfile.Description, mkfile.CreatedAt = "mkfile /x", time.Now()

	const onBase = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},
		"rootfs":{"type":"layers","diff_ids":["sha256:8ba0cba46f3e966117bba1b095806f45866aa15487b555ca0019f07f8bde713c"]},
		"history":[{"created":"2026-01-01T00:00:00Z","created_by":"ADD rootfs / # base"},{"created":"2026-01-01T00:00:00Z","created_by":"CMD [\"sh\"]","empty_layer":true}]}`
	const copied = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},
		"history":[{"created":"2026-01-01T00:00:00Z","created_by":"ADD rootfs / # base"},{"created":"2026-01-01T00:00:00Z","created_by":"CMD [\"sh\"]","empty_layer":true},
		{"created_by":"COPY a.txt / # buildkit","comment":"buildkit.dockerfile.v0"}]}`

	for name, tc := range map[string]struct {
		raw, base        string
		layers           []cache.Layer
		epoch            time.Time
		config, manifest string
	}{
		"a file of LLB without config": {
			layers: []cache.Layer{mkfile}, epoch: newYear,
			config:   "a324d2c9d8547d8cda6f3bab77442c1d3f96f7e812b10dc759cb3c2dc31bf928",
			manifest: "bd69889348c66445869c2b1876fc2e998cec9d1c973569fc9df27bdcb77d77ba",
		},
		"a copy on a base": {
			raw: copied, base: onBase, layers: []cache.Layer{base, fileA}, epoch: newYear,
			config:   "f5b168f0f66e950bb4ac93f99c81fa2878e9a253426a5780204693022c6a34d2",
			manifest: "54a33d40b6fa892a3a0dd37a0f14a4640e5f2d4bf278d8f526d277217de07a83",
		},
		"a copy on a base that is later than the epoch": {
			raw: copied, base: onBase, layers: []cache.Layer{base, fileA}, epoch: time.Unix(1700000000, 0),
			config:   "0b80d714c31a19ed57aa179f2a37dd5fd785dd49b8f9897abe31d0b2574b9228",
			manifest: "1be9cd149e6dd34ff4279a01f825ac8bef3a4be1ef75b8afe407b588fdca1c30",
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := tc.epoch.UTC()
			config, err := makeConfig([]byte(tc.raw), []byte(tc.base), linux, tc.layers, &at)
			require.NoError(t, err)
			desc := describe(ocispec.MediaTypeImageConfig, config)
			require.Equal(t, tc.config, desc.Digest.Encoded(), "%s", config)
			manifest, err := makeManifest(typesOf(true), desc, tc.layers, nil)
			require.NoError(t, err)
			require.Equal(t, tc.manifest, digest.FromBytes(manifest).Encoded(), "%s", manifest)
		})
	}
	t.Run("an index over two platforms", func(t *testing.T) {
		index, err := makeIndex(typesOf(true), []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageManifest, Size: 668, Platform: platformOf(linux), Digest: "sha256:ed7c46febacd77e5ac7c039aad5799c1a90ed359a082892e7f0b5ff400791946"},
			{MediaType: ocispec.MediaTypeImageManifest, Size: 668, Platform: platformOf(platforms.MustParse("linux/arm64")), Digest: "sha256:36d18fdaad05262501bdfc2e7972644e5a6d2f73a9a422cc4be7b187bff48b9f"},
		}, nil)
		require.NoError(t, err)
		require.Equal(t, "1fe547cc5f522b476aa442aaae85805b1d727e6402b5cee09278794a5fece3ff", digest.FromBytes(index).Encoded(), "%s", index)
	})
}

func at(sec int64) *time.Time {
	t := time.Unix(sec, 0).UTC()
	return &t
}

func TestHistory(t *testing.T) {
	layer := func(sec int64, text string) cache.Layer {
		return cache.Layer{CreatedAt: time.Unix(sec, 0), Description: text}
	}
	empty := func(by string, created *time.Time) ocispec.History {
		return ocispec.History{CreatedBy: by, Created: created, EmptyLayer: true}
	}
	full := func(by string, created *time.Time) ocispec.History {
		return ocispec.History{CreatedBy: by, Created: created}
	}
	for name, tc := range map[string]struct {
		given  []ocispec.History
		layers []cache.Layer
		want   []ocispec.History
		warn   bool
	}{
		"layers nobody told of come last": {
			given:  []ocispec.History{full("base", at(1))},
			layers: []cache.Layer{layer(1, ""), layer(5, "mkfile /x")},
			want:   []ocispec.History{full("base", at(1)), {CreatedBy: "mkfile /x", Created: at(5), Comment: historyComment}},
		},
		"the lowest of too many become empty": {
			given:  []ocispec.History{full("a", at(1)), full("b", at(2)), full("c", at(3))},
			layers: []cache.Layer{layer(9, "")},
			want:   []ocispec.History{empty("a", at(1)), empty("b", at(2)), full("c", at(3))},
			warn:   true,
		},
		"times come from the layers": {
			given:  []ocispec.History{full("base", at(1)), empty("ENV", nil), full("RUN", nil), empty("CMD", nil), full("COPY", nil), empty("USER", nil)},
			layers: []cache.Layer{layer(1, ""), layer(5, ""), layer(7, "")},
			want:   []ocispec.History{full("base", at(1)), empty("ENV", at(5)), full("RUN", at(5)), empty("CMD", at(5)), full("COPY", at(7)), empty("USER", at(7))},
		},
		"without new layers times come from the base": {
			given:  []ocispec.History{full("base", at(1)), empty("ENV", nil)},
			layers: []cache.Layer{layer(9, "")},
			want:   []ocispec.History{full("base", at(1)), empty("ENV", at(1))},
		},
		"without anything there are none": {
			given: []ocispec.History{empty("ENV", nil)},
			want:  []ocispec.History{empty("ENV", nil)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := normalizeHistory(tc.given, tc.layers)
			require.Equal(t, tc.warn, err != nil)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestConfigKeepsWhatIsNotKnown(t *testing.T) {
	raw := `{"os":"linux","architecture":"amd64","variant":"v2","future":{"a":[1]},"created":"2030-01-01T00:00:00Z","moby.buildkit.cache.v0":"x"}`
	data, err := makeConfig([]byte(raw), nil, linux, nil, at(1767225600))
	require.NoError(t, err)
	require.JSONEq(t, `{"os":"linux","architecture":"amd64","variant":"v2","future":{"a":[1]},"created":"2026-01-01T00:00:00Z","history":[],"rootfs":{"type":"layers","diff_ids":[]}}`, string(data))
}

func TestConfigErrors(t *testing.T) {
	for raw, want := range map[string]string{
		`{"os":"linux"}`:           "invalid image config for export: missing architecture",
		`{"architecture":"amd64"}`: "invalid image config for export: missing os",
		`[]`:                       "failed to parse image config for export",
		`{"os":"linux","architecture":"amd64","history":{}}`: "failed to parse image config for export",
		`null`: "invalid null image config for export",
	} {
		_, err := makeConfig([]byte(raw), nil, linux, nil, nil)
		require.ErrorContains(t, err, want)
	}
}

func TestLayersAreCleaned(t *testing.T) {
	d := ocispec.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", URLs: []string{"https://x.test"},
		Annotations: map[string]string{
			"containerd.io/uncompressed": "x", "buildkit/createdat": "x", "containerd.io/distribution.source.x": "y",
			"containerd.io/snapshot/stargz/toc.digest": "z",
		},
	}
	own := map[string]string{"containerd.io/snapshot/stargz/toc.digest": "z"}
	require.Equal(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Annotations: own}, cleanLayer(d, true, false))
	require.Equal(t, ocispec.Descriptor{MediaType: d.MediaType, URLs: d.URLs}, cleanLayer(d, false, true))
}

func TestForeignLayersHaveTheTypesOfTheFormat(t *testing.T) {
	for _, form := range []blob.Compression{blob.Uncompressed, blob.Gzip, blob.Zstd} {
		for _, from := range []bool{false, true} {
			d := ocispec.Descriptor{MediaType: foreignType(blob.MediaType(form, from)), URLs: []string{"https://x.test"}}
			require.NotEqual(t, blob.MediaType(form, from), d.MediaType)
			for _, oci := range []bool{false, true} {
				require.Equal(t, ocispec.Descriptor{MediaType: blob.MediaType(form, !oci)}, cleanLayer(d, oci, false))
				require.Equal(t, ocispec.Descriptor{MediaType: foreignType(blob.MediaType(form, !oci)), URLs: d.URLs}, cleanLayer(d, oci, true))
			}
		}
	}
	require.Equal(t, ocispec.MediaTypeImageLayerNonDistributableZstd, foreignType(ocispec.MediaTypeImageLayerZstd)) //nolint:staticcheck // layers of that type exist
	require.Equal(t, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", foreignType(blob.DockerLayerGzip))
	strange := ocispec.Descriptor{MediaType: "application/vnd.example.layer"}
	require.Equal(t, strange, cleanLayer(strange, true, false))
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","history":[{},{"empty_layer":true}]}`), []byte(`{"history":[{}]}`), 2)
	f.Fuzz(func(t *testing.T, raw, base []byte, n int) {
		if n < 0 || n > 100 {
			return
		}
		layers := make([]cache.Layer, n)
		for i := range layers {
			layers[i].CreatedAt = time.Unix(int64(i), 0)
		}
		data, err := makeConfig(raw, base, linux, layers, &newYear)
		if err != nil {
			return
		}
		var img ocispec.Image
		if err := json.Unmarshal(data, &img); err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, h := range img.History {
			if !h.EmptyLayer {
				told++
			}
		}
		if told != n || len(img.RootFS.DiffIDs) != n {
			t.Fatalf("%d layers, history of %d: %s", n, told, data)
		}
	})
}
