package blob

import (
	"net/url"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ForeignURLs returns where a layer that registries must not distribute may be read instead; nil for
// every other blob, whose place is the registry that named it. Whoever writes a manifest could
// otherwise make its reader send requests to servers of his choice.
func ForeignURLs(desc ocispec.Descriptor) []string {
	if !images.IsNonDistributable(desc.MediaType) {
		return nil
	}
	urls := slices.DeleteFunc(slices.Clone(desc.URLs), func(s string) bool {
		u, err := url.Parse(s)
		return err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https"
	})
	if len(urls) == 0 {
		return nil
	}
	return urls
}
