package image

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
)

func TestTheVersionDecidesTheMediaTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		version compat.Version
		attrs   map[string]string
		oci     bool
	}{
		"now":                                       {compat.V30, nil, true},
		"before":                                    {compat.V20, nil, false},
		"at first":                                  {compat.V10, nil, false},
		"before, of a layer that needs them":        {compat.V20, map[string]string{"compression": "estargz"}, true},
		"before, of an artifact":                    {compat.V20, map[string]string{"oci-artifact": "true"}, true},
		"before, of a layer that both have":         {compat.V20, map[string]string{"compression": "zstd"}, false},
		"before, as asked for":                      {compat.V20, map[string]string{"oci-mediatypes": ""}, true},
		"now, as asked for":                         {compat.V30, map[string]string{"oci-mediatypes": "false"}, false},
		"now, as asked for, and artifacts not":      {compat.V30, map[string]string{"oci-mediatypes": "0", "oci-artifact": "false"}, false},
		"now, with annotations that both have":      {compat.V30, map[string]string{"oci-mediatypes": "false", "annotation.a": "b"}, false},
		"now, as asked for, with zstd that is fine": {compat.V30, map[string]string{"oci-mediatypes": "false", "compression": "zstd"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := ParseOptions(tc.attrs, tc.version)
			require.NoError(t, err)
			require.Equal(t, tc.oci, o.ociTypes(false))
		})
	}
}

func TestOptionsThatExcludeEachOther(t *testing.T) {
	for want, attrs := range map[string]map[string]string{
		`exporter option "compression=estargz" conflicts with "oci-mediatypes=false"`: {"compression": "estargz", "oci-mediatypes": "false"},
		`exporter option "oci-artifact" conflicts with "oci-mediatypes=false"`:        {"oci-artifact": "true", "oci-mediatypes": "false"},
		`cannot export annotations with "oci-mediatypes=false"`:                       {"annotation-index.a": "b", "oci-mediatypes": "false"},
		`exporter option "rewrite-timestamp" conflicts with "unpack"`:                 {"rewrite-timestamp": "", "unpack": ""},
		`failed to push x:1: can't push tagged ref docker.io/library/x:1 by digest`:   {"name": "y,x:1", "push": "true", "push-by-digest": "true"},
		`failed to push UPPER: invalid reference format: repository name (library/UPPER) must be lowercase`: {
			"name": "UPPER", "push": "true",
		},
	} {
		_, err := New(nil, nil).Resolve(attrs, compat.Current)
		require.EqualError(t, err, want)
	}
}

func TestBadAttributesAreNamed(t *testing.T) {
	bools := []string{
		"push", "push-by-digest", "registry.insecure", "store", "unpack", "name-canonical", "danging-name-empty-only",
		"unsafe-internal-store-allow-incomplete", "oci-mediatypes", "oci-artifact", "attestation-inline",
		"prefer-nondist-layers", "force-compression", "rewrite-timestamp",
	}
	for _, key := range bools {
		_, err := New(nil, nil).Resolve(map[string]string{key: "often"}, compat.Current)
		require.ErrorContains(t, err, "non-bool value specified for "+key+": ")
	}
	for want, attrs := range map[string]map[string]string{
		"unsupported compression type lzw":                              {"compression": "lzw"},
		"non-integer value much specified for compression-level":        {"compression-level": "much"},
		"invalid source-date-epoch":                                     {"source-date-epoch": "soon"},
		"unrecognized annotation type blah":                             {"annotation-blah.k": "v"},
		`invalid platform of annotation "annotation[linux/amd64/x/y].k`: {"annotation[linux/amd64/x/y].k": "v"},
		`invalid annotation attribute "annotation."`:                    {"annotation.": "v"},
		`invalid annotation attribute "annotation.a b"`:                 {"annotation.a b": "v"},
		`invalid annotation attribute "annotation-index"`:               {"annotation-index": "v"},
		`invalid annotation attribute "annotation[linux/amd64.k"`:       {"annotation[linux/amd64.k": "v"},
		`invalid annotation attribute "annotation[linux_amd64!].k"`:     {"annotation[linux_amd64!].k": "v"},
	} {
		_, err := exporter.Registry{Type: New(nil, nil)}.Resolve(Type, attrs, compat.Current)
		require.ErrorContains(t, err, want)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}

func TestZstdIsNotInTheFirstVersion(t *testing.T) {
	_, err := ParseOptions(map[string]string{"compression": "zstd"}, compat.V10)
	var typed *status.CompatibilityFeatureError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, "compression=zstd", typed.Feature)
	for _, c := range []blob.Compression{blob.Uncompressed, blob.Gzip, blob.EStargz} {
		_, err := ParseOptions(map[string]string{"compression": string(c)}, compat.V10)
		require.NoError(t, err)
	}
}

func TestUnknownAttributesBecomeMetadata(t *testing.T) {
	o, err := ParseOptions(map[string]string{"containerimage.config": "{}", "own": "o", "tar": "true"}, compat.Current, "tar")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"containerimage.config": []byte("{}"), "own": []byte("o")}, o.Metadata)
}
