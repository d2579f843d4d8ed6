package image

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
)

// Options says what image is wanted. The zero value is an OCI image with gzip layers.
type Options struct {
	// Names are the image's names in full, with tags. FromResult takes those of the result.
	Names      []string
	FromResult bool

	// Version decides the defaults of what follows; 0 is the current one.
	Version compat.Version
	// OCITypes says whether media types are those of OCI or Docker's; nil for the default.
	OCITypes *bool
	// OCIArtifact says whether attestations are OCI artifacts; nil for the default.
	OCIArtifact *bool
	// Inline has attestations that are for inline use only make an index too.
	Inline bool
	// Compression of layers. DockerTypes is not used: see OCITypes.
	Compression blob.CompressionOpt
	// KeepNonDistributable keeps media types that forbid distribution; otherwise such layers are
	// like all others.
	KeepNonDistributable bool
	// RewriteTimestamp changes times in layers that are later than the epoch.
	RewriteTimestamp bool
	Epoch            exporter.Epoch
	Annotations      Annotations
	// Metadata is merged into that of the result.
	Metadata map[string][]byte
}

// ParseOptions reads the attributes that all exporters of images share. Attributes that are in
// others are left to the caller; those that nobody knows become metadata.
func ParseOptions(attrs map[string]string, version compat.Version, others ...string) (*Options, error) {
	o := &Options{Version: version, Compression: blob.CompressionOpt{Type: blob.Gzip}, Metadata: map[string][]byte{}}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if slices.Contains(others, k) {
			continue
		}
		if err := o.parse(k, attrs[k]); err != nil {
			return nil, err
		}
	}
	return o, o.check()
}

// Attributes of images.
const (
	AttrName          = "name"
	AttrOCITypes      = "oci-mediatypes"
	attrOCIArtifact   = "oci-artifact"
	attrInline        = "attestation-inline"
	attrNonDist       = "prefer-nondist-layers"
	attrCompression   = "compression"
	attrForce         = "force-compression"
	attrLevel         = "compression-level"
	attrRewrite       = "rewrite-timestamp"
	nameFromResult    = "*"
	annotationKeyword = "annotation"
)

func (o *Options) parse(k, v string) (err error) {
	switch k {
	case AttrName:
		if v == nameFromResult {
			o.FromResult = true
			return nil
		}
		o.Names = splitNames(v)
	case AttrOCITypes:
		o.OCITypes, err = parseSwitch(k, v)
	case attrOCIArtifact:
		o.OCIArtifact, err = parseSwitch(k, v)
	case attrInline:
		o.Inline, err = exporter.ParseBool(k, v)
	case attrNonDist:
		o.KeepNonDistributable, err = exporter.ParseBool(k, v)
	case attrCompression:
		o.Compression.Type = blob.Compression(v)
	case attrForce:
		o.Compression.Force, err = exporter.ParseBool(k, v)
	case attrLevel:
		var n int
		n, err = exporter.ParseInt(k, v)
		o.Compression.Level = &n
	case attrRewrite:
		o.RewriteTimestamp, err = exporter.ParseBool(k, v)
	case exporter.AttrEpoch:
		o.Epoch, err = exporter.ParseEpoch(v)
	default:
		var known bool
		switch known, err = o.Annotations.parse(k, v); {
		case err != nil, known:
		case misspelledAnnotation(k):
			err = fmt.Errorf("invalid annotation attribute %q: it has the form annotation[-PLACE][[PLATFORM]].KEY", k)
		default:
			o.Metadata[k] = []byte(v)
		}
	}
	return err
}

// parseSwitch reads a switch that differs from one that is not given.
func parseSwitch(k, v string) (*bool, error) {
	b, err := exporter.ParseBool(k, v)
	return &b, err
}

// check finds options that exclude each other.
func (o *Options) check() error {
	if err := blob.CheckLevel(o.Compression.Type, o.Compression.Level); err != nil {
		return err
	}
	if o.Compression.Type == blob.Zstd && o.Version == compat.V10 {
		return o.Version.Lacks(attrCompression + "=" + string(blob.Zstd))
	}
	if o.ociTypes(false) {
		return nil
	}
	switch {
	case o.OCITypes != nil && o.Compression.Type == blob.EStargz:
		return conflict(attrCompression+"="+string(blob.EStargz), AttrOCITypes+"=false")
	case o.OCIArtifact != nil && *o.OCIArtifact:
		return conflict(attrOCIArtifact, AttrOCITypes+"=false")
	}
	return o.Annotations.checkTypes(false)
}

func conflict(a, b string) error {
	return fmt.Errorf("exporter option %q conflicts with %q", a, b)
}

// ociTypes returns which media types are used. Versions that prefer Docker's take those of OCI
// where Docker has none that fit, and for images with attestations.
func (o *Options) ociTypes(attested bool) bool {
	if o.OCITypes != nil {
		return *o.OCITypes
	}
	return attested || o.Version == 0 || o.Version >= compat.V30 ||
		o.Compression.Type == blob.EStargz || o.OCIArtifact != nil && *o.OCIArtifact
}

// ociArtifact returns whether attestations are OCI artifacts.
func (o *Options) ociArtifact(oci bool) bool {
	if o.OCIArtifact != nil {
		return *o.OCIArtifact
	}
	return oci && (o.Version == 0 || o.Version >= compat.V30)
}

// ImageNames returns the names for a result.
func (o *Options) ImageNames(res *exporter.Result) []string {
	if o.FromResult {
		return splitNames(string(res.Metadata[exporter.KeyImageName]))
	}
	return o.Names
}

func splitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// NormalizeNames returns names in full: with their registry and a tag.
func NormalizeNames(names []string) ([]string, error) {
	full := make([]string, 0, len(names))
	for _, name := range names {
		parsed, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, fmt.Errorf("failed to parse image name %q: %w", name, err)
		}
		full = append(full, reference.TagNameOnly(parsed).String())
	}
	return full, nil
}
