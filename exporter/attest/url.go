//go:build linux

package attest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"
)

// Types of package urls of images: from registries, and from layouts.
const (
	TypeDocker = "docker"
	TypeOCI    = "oci"
)

// ImageURL returns the package url of an image, of a platform unless that is nil: names are short
// where they are on Docker Hub, a digest becomes a qualifier, and without either a tag is latest. Qualifiers
// are in order of their keys.
// The format is that of https://github.com/package-url/purl-spec, with ports of registries escaped, as
// tools that look images up by their urls expect it; later versions of the library do not.
func ImageURL(typ, ref string, platform *ocispec.Platform, more ...packageurl.Qualifier) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("package url of image %q: %w", ref, err)
	}
	qualifiers := packageurl.Qualifiers(slices.Clone(more))
	if d, ok := named.(reference.Digested); ok {
		qualifiers = append(qualifiers, packageurl.Qualifier{Key: "digest", Value: d.Digest().String()})
	}
	version := ""
	if t, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		version = t.Tag()
	}
	if platform != nil {
		p := platforms.Format(platforms.Normalize(*platform))
		qualifiers = append(qualifiers, packageurl.Qualifier{Key: "platform", Value: p})
	}
	slices.SortFunc(qualifiers, func(a, b packageurl.Qualifier) int { return strings.Compare(a.Key, b.Key) })
	folder, name := "", reference.FamiliarName(named)
	if i := strings.LastIndex(name, "/"); i >= 0 {
		folder, name = name[:i], name[i+1:]
	}
	return packageurl.NewPackageURL(typ, folder, name, version, qualifiers, "").ToString(), nil
}
