//go:build linux

package attest_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	intoto "github.com/in-toto/in-toto-golang/in_toto"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
)

var self = []attest.Subject{{Name: "pkg:docker/a@1", Digest: map[string]string{"sha256": strings.Repeat("a", 64)}}}

const statement = `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","subject":SUBJECT,"predicate":{"spdxVersion": "SPDX-2.3"}}`

func bundle(t *testing.T, b *exportertest.Bench, files map[string]string) exporter.Attestation {
	t.Helper()
	ref := b.Tree(nil, "", func(dir string) {
		require.NoError(t, os.Mkdir(dir+"/sbom", 0o755))
		for name, content := range files {
			require.NoError(t, os.WriteFile(dir+"/sbom/"+name, []byte(content), 0o644))
		}
	})
	return exporter.Attestation{Kind: gatewaypb.AttestationKind_Bundle, Ref: ref, Path: "/sbom", PredicateType: attest.PredicateSPDX}
}

func TestABundleIsTakenApart(t *testing.T) {
	b := exportertest.New(t, false)
	other := strings.Repeat("b", 64)
	a := bundle(t, b, map[string]string{
		"b.spdx.json": strings.Replace(statement, "SUBJECT", "null", 1),
		"a.spdx.json": strings.Replace(statement, "SUBJECT", `[{"name":"","digest":{"sha256":"`+other+`"}}]`, 1),
	})
	a.Metadata = map[string][]byte{exporter.AttestationReason: []byte(exporter.ReasonSBOM)}
	ps, err := attest.Load(t.Context(), []exporter.Attestation{a}, attest.Options{})
	require.NoError(t, err)
	require.Len(t, ps, 2)
	require.Equal(t, "a.spdx.json", ps[0].Name)
	require.Equal(t, a.Metadata, ps[1].Metadata)
	require.JSONEq(t, `{"spdxVersion":"SPDX-2.3"}`, string(ps[1].Body))
	require.Equal(t, []attest.Subject{{Name: "_", Digest: map[string]string{"sha256": other}}}, ps[0].Statement(self).Subject)
	require.Equal(t, self, ps[1].Statement(self).Subject)
}

func TestAPredicateIsReadOrMade(t *testing.T) {
	b := exportertest.New(t, false)
	ref := b.Tree(nil, "", func(dir string) {
		require.NoError(t, os.WriteFile(dir+"/p.json", []byte("{\n \"a\": 1\n}\n"), 0o644))
	})
	atts := []exporter.Attestation{
		{Ref: ref, Path: "../p.json", PredicateType: "https://example.org/p", Subjects: []exporter.Subject{
			{Kind: gatewaypb.InTotoSubjectKind_Self},
			{Kind: gatewaypb.InTotoSubjectKind_Raw, Name: "x", Digest: []digest.Digest{digest.FromString("x"), digest.SHA512.FromString("x")}},
		}},
		{Path: "made.json", PredicateType: "https://example.org/q", Content: func(_ context.Context, layers []ocispec.Descriptor) ([]byte, error) {
			return json.Marshal(map[string]any{"layers": len(layers)})
		}},
	}
	ps, err := attest.Load(t.Context(), atts, attest.Options{Layers: make([]ocispec.Descriptor, 3)})
	require.NoError(t, err)
	require.Len(t, ps, 2)
	data, err := json.Marshal(ps[0].Statement(self))
	require.NoError(t, err)
	require.Contains(t, string(data), `"predicate":{"a":1}}`)
	var header intoto.StatementHeader //nolint:staticcheck // what most who verify parse with
	require.NoError(t, json.Unmarshal(data, &header), "others read it")
	require.Equal(t, "https://in-toto.io/Statement/v1", header.Type)
	require.Equal(t, "https://example.org/p", header.PredicateType)
	require.Len(t, header.Subject, 2)
	require.Equal(t, self[0].Digest["sha256"], header.Subject[0].Digest["sha256"])
	require.Equal(t, digest.SHA512.FromString("x").Encoded(), header.Subject[1].Digest["sha512"])
	require.Equal(t, "made.json", ps[1].Name)
	require.JSONEq(t, `{"layers":3}`, string(ps[1].Body))
}

func TestAllThatIsSaidOfAResultIsBounded(t *testing.T) {
	text := []byte(`{"a":"12"}`)
	a := exporter.Attestation{Path: "p.json", PredicateType: "x", Content: func(context.Context, []ocispec.Descriptor) ([]byte, error) { return text, nil }}
	_, err := attest.LoadBounded(t.Context(), slices.Repeat([]exporter.Attestation{a}, 2), attest.Options{}, 20)
	require.NoError(t, err)
	_, err = attest.LoadBounded(t.Context(), slices.Repeat([]exporter.Attestation{a}, 3), attest.Options{}, 20)
	require.EqualError(t, err, `attestation "p.json": all of a result are larger than 20 bytes`)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestWhatIsNoAttestationIsRefused(t *testing.T) {
	b := exportertest.New(t, false)
	ref := b.Tree(nil, "", func(dir string) {
		for name, content := range map[string]string{"list": "[]", "null": "null", "two": "{}{}", "text": "hello"} {
			require.NoError(t, os.WriteFile(dir+"/"+name, []byte(content), 0o644))
		}
		require.NoError(t, os.Symlink("/etc/passwd", dir+"/link"))
		require.NoError(t, os.Mkdir(dir+"/folder", 0o755))
		f, err := os.Create(dir + "/large")
		require.NoError(t, err)
		require.NoError(t, f.Truncate(40<<20+1))
		require.NoError(t, f.Close())
	})
	file := func(name string) exporter.Attestation {
		return exporter.Attestation{Ref: ref, Path: name, PredicateType: "x"}
	}
	for name, tc := range map[string]struct {
		a   exporter.Attestation
		err string
	}{
		"unknown kind":        {exporter.Attestation{Kind: 7}, "unknown attestation kind 7"},
		"nothing":             {exporter.Attestation{Path: "x", PredicateType: "x"}, `attestation "x" has no content`},
		"no type":             {exporter.Attestation{Path: "x"}, `attestation "x" has no predicate type`},
		"bundle without tree": {exporter.Attestation{Kind: gatewaypb.AttestationKind_Bundle, Path: "x"}, `attestation bundle "x" has no tree`},
		"absent":              {file("absent"), `attestation "absent": `},
		"link":                {file("link"), `attestation "link" is not a regular file`},
		"folder":              {file("folder"), `attestation "folder" is not a regular file`},
		"large":               {file("large"), `attestation "large" is larger than 41943040 bytes`},
		"list":                {file("list"), `predicate of attestation "list" is no JSON object`},
		"null":                {file("null"), `predicate of attestation "null" is no JSON object`},
		"two":                 {file("two"), "more follows the first JSON value"},
		"text":                {file("text"), `predicate of attestation "text" is no JSON object`},
		"no folder":           {exporter.Attestation{Kind: gatewaypb.AttestationKind_Bundle, Ref: ref, Path: "list"}, `attestation bundle "list": `},
		"no statement":        {bundle(t, b, map[string]string{"x": "[]"}), `attestation "/sbom/x" is no in-toto statement`},
		"no predicate type":   {bundle(t, b, map[string]string{"x": "{}"}), `attestation "/sbom/x" has no predicate type`},
		"other type":          {bundle(t, b, map[string]string{"x": `{"predicateType":"y","predicate":{}}`}), `bundle entry "/sbom/x" does not match required predicate type https://spdx.dev/Document`},
		"no predicate":        {bundle(t, b, map[string]string{"x": `{"predicateType":"https://spdx.dev/Document"}`}), `predicate of attestation "/sbom/x" is no JSON object`},
		"provenance in a bundle": {func() exporter.Attestation {
			a := bundle(t, b, map[string]string{"x": `{"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`})
			a.PredicateType = ""
			return a
		}(), "only the builder may state https://slsa.dev/provenance/v1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attest.Load(t.Context(), []exporter.Attestation{tc.a}, attest.Options{})
			require.ErrorContains(t, err, tc.err)
		})
	}
}

func TestImagesHavePackageURLs(t *testing.T) {
	arm := platforms.MustParse("linux/arm/v7")
	for ref, want := range map[string]string{
		"alpine":                       "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7",
		"docker.io/library/alpine:3.2": "pkg:docker/alpine@3.2?platform=linux%2Farm%2Fv7",
		"docker.io/some/one":           "pkg:docker/some/one@latest?platform=linux%2Farm%2Fv7",
		"localhost:5057/out/att:1":     "pkg:docker/localhost%3A5057/out/att@1?platform=linux%2Farm%2Fv7",
		"example.org/a@" + digest.FromString("x").String(): "pkg:docker/example.org/a?digest=sha256:" + digest.FromString("x").Encoded() + "&platform=linux%2Farm%2Fv7",
	} {
		got, err := attest.ImageURL(attest.TypeDocker, ref, &arm)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := attest.ImageURL(attest.TypeOCI, "a", nil)
	require.NoError(t, err)
	require.Equal(t, "pkg:oci/a@latest", got)
	_, err = attest.ImageURL(attest.TypeDocker, "UPPER", nil)
	require.ErrorContains(t, err, `package url of image "UPPER"`)
}

func FuzzStatement(f *testing.F) {
	f.Add([]byte(strings.Replace(statement, "SUBJECT", "[]", 1)))
	f.Add([]byte(`{"predicateType":"x","predicate":{},"subject":[{"name":"n","digest":{"":""}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(dir+"/s.json", data, 0o600))
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer root.Close()
		p, err := attest.ReadStatement(root, "s.json")
		if err != nil {
			return
		}
		out, err := json.Marshal(p.Statement(self))
		require.NoError(t, err)
		require.True(t, json.Valid(out))
	})
}
