//go:build linux

package local_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
	"github.com/openbuildkit/buildkit/exporter/local"
)

func said(path string, meta map[string][]byte) exporter.Attestation {
	return exporter.Attestation{
		Path: path, PredicateType: "https://example.org/said", Metadata: meta,
		Content: func(context.Context, []ocispec.Descriptor) ([]byte, error) { return []byte(`{"a":1}`), nil },
	}
}

func sum(content string) map[string]string {
	h := sha256.Sum256([]byte(content))
	return map[string]string{"sha256": hex.EncodeToString(h[:])}
}

func TestAttestationsAreFilesBesideTheResult(t *testing.T) {
	files := map[string]string{"a": "1", "d/b": "2", "z": "3"}
	for name, tc := range map[string]struct {
		platforms bool
		attrs     map[string]string
		want      []string
	}{
		"one tree":      {want: []string{"said.json"}},
		"with a prefix": {attrs: map[string]string{"attestation-prefix": "x-"}, want: []string{"x-said.json"}},
		"in folders":    {platforms: true, want: []string{"linux_amd64/said.json", "linux_arm64/said.json"}},
		"over each other": {
			platforms: true, attrs: map[string]string{"platform-split": "false"},
			want: []string{"said.linux_amd64.json", "said.linux_arm64.json"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := exportertest.New(t, false)
			atts := []exporter.Attestation{
				said("/in/said.json", nil),
				said("inline.json", map[string][]byte{exporter.AttestationInlineOnly: []byte("true")}),
			}
			res := &exporter.Result{Attestations: map[string][]exporter.Attestation{"linux/amd64": atts, "linux/arm64": atts}}
			ref := b.Tree(nil, "", func(dir string) {
				write(t, dir, files)
				require.NoError(t, os.Symlink("a", dir+"/link"))
			})
			if tc.platforms {
				res.Refs = map[string]*cache.Ref{"linux/amd64": ref, "linux/arm64": nil}
				res.Metadata = map[string][]byte{exporter.KeyPlatforms: []byte(twoPlatforms)}
			} else {
				res.Ref = ref
			}
			_, err := b.Export(local.New(b.Sessions), tc.attrs, res, 0)
			require.NoError(t, err)
			var found []string
			for _, f := range list(t, b.Dir) {
				require.NotContains(t, f, "inline")
				if name, _, _ := strings.Cut(f, " "); strings.Contains(name, "said") {
					found = append(found, name)
				}
			}
			require.Equal(t, tc.want, found)
			st, err := os.Stat(b.Dir + "/" + tc.want[0])
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), st.Mode())
			data, err := os.ReadFile(b.Dir + "/" + tc.want[0])
			require.NoError(t, err)
			require.Contains(t, string(data), "\n  \"predicateType\"")
			var s attest.Statement
			require.NoError(t, json.Unmarshal(data, &s))
			require.Equal(t, []attest.Subject{{Name: "a", Digest: sum("1")}, {Name: "d/b", Digest: sum("2")}, {Name: "z", Digest: sum("3")}}, s.Subject)
		})
	}
}

func TestAttestationsThatCannotBeFilesAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		atts  []exporter.Attestation
		attrs map[string]string
		err   string
	}{
		"the same name twice":      {atts: []exporter.Attestation{said("a/x.json", nil), said("b/x.json", nil)}, err: "duplicate attestation path name x.json"},
		"no name":                  {atts: []exporter.Attestation{said("/", nil)}, err: `attestation path name "/" cannot be the name of a file`},
		"a prefix with a path":     {atts: []exporter.Attestation{said("x", nil)}, attrs: map[string]string{"attestation-prefix": "../"}, err: `attestation path name "../x" cannot be the name of a file`},
		"a folder in the way":      {atts: []exporter.Attestation{said("d", nil)}, err: "the result has a folder where the attestation d is to be"},
		"a link to what is hidden": {atts: []exporter.Attestation{said("a", nil)}, err: "hard of the result is a hard link"},
	} {
		t.Run(name, func(t *testing.T) {
			b := exportertest.New(t, false)
			ref := b.Tree(nil, "", func(dir string) {
				write(t, dir, map[string]string{"d/b": "2", "a": "1"})
				require.NoError(t, os.Link(dir+"/a", dir+"/hard"))
			})
			_, err := b.Export(local.New(b.Sessions), tc.attrs, &exporter.Result{
				Ref: ref, Attestations: map[string][]exporter.Attestation{"linux/amd64": tc.atts},
			}, 0)
			require.ErrorContains(t, err, tc.err)
		})
	}
}
