package provenance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/package-url/packageurl-go"

	"github.com/openbuildkit/buildkit/exporter/attest"
	"github.com/openbuildkit/buildkit/worker/source"
)

// material is a resource that went into the result.
type material struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// list returns the materials, each once: images, blobs, repositories, files. Folders of the client
// are none: nothing is known of them but their names.
func (c *Capture) list() ([]material, error) {
	kinds := [4][]material{}
	add := func(kind int, uri string, digest map[string]string) {
		for _, m := range kinds[kind] {
			if m.URI == uri && sameDigest(m.Digest, digest) {
				return
			}
		}
		kinds[kind] = append(kinds[kind], material{uri, digest})
	}
	tagged := c.tagged()
	for _, m := range c.materials {
		switch m.Kind {
		case source.MaterialImage:
			if !m.Blob && isPinned(m.Name) && tagged[taggedKey(m)] {
				continue
			}
			uri, err := imageURL(m)
			if err != nil {
				return nil, err
			}
			kind := 0
			if m.Blob {
				kind = 1
			}
			add(kind, uri, digestOf(m.Digest))
		case source.MaterialGit:
			if m.Bundle != nil {
				uri, err := imageURL(*m.Bundle, packageurl.Qualifier{Key: "vcs_url", Value: m.Name})
				if err != nil {
					return nil, err
				}
				add(2, uri, digestOf(m.Bundle.Digest))
			}
			add(2, m.Name, commit(m.Digest))
		case source.MaterialHTTP:
			add(3, m.Name, digestOf(m.Digest))
		}
	}
	var all []material
	for _, k := range kinds {
		slices.SortFunc(k, func(a, b material) int { return cmp.Compare(a.URI, b.URI) })
		all = append(all, k...)
	}
	return all, nil
}

// tagged returns the images that were named by a tag alone. Frontends look them up, and then name them by tag
// and digest.
func (c *Capture) tagged() map[string]bool {
	keys := map[string]bool{}
	for _, m := range c.materials {
		if m.Kind == source.MaterialImage && !m.Blob && !isPinned(m.Name) {
			keys[taggedKey(m)] = true
		}
	}
	return keys
}

// taggedKey is the same for an image named by its tag, and by its tag and the digest that this stood for.
func taggedKey(m source.Material) string {
	return fmt.Sprintf("%t %s %s%s", m.Layout, withoutDigest(m.Name), m.Digest, platform(m))
}

func platform(m source.Material) string {
	if m.Platform == nil {
		return ""
	}
	return " " + platforms.Format(platforms.Normalize(*m.Platform))
}

func isPinned(ref string) bool { return strings.Contains(ref, "@") }

// withoutDigest returns a reference in full with its tag.
func withoutDigest(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.TagNameOnly(named).String()
}

// imageURL returns the package url of an image or blob.
func imageURL(m source.Material, more ...packageurl.Qualifier) (string, error) {
	typ := attest.TypeDocker
	if m.Layout {
		typ = attest.TypeOCI
	}
	switch {
	case len(more) > 0:
		more = append(more, packageurl.Qualifier{Key: "ref_type", Value: "bundle"})
	case m.Blob:
		more = append(more, packageurl.Qualifier{Key: "ref_type", Value: "blob"})
	}
	return attest.ImageURL(typ, m.Name, m.Platform, more...)
}

// digestOf returns a digest as a set; nil for none.
func digestOf(d string) map[string]string {
	alg, hex, ok := strings.Cut(d, ":")
	if !ok {
		return nil
	}
	return map[string]string{alg: hex}
}

// commit returns the hash of a commit as a set.
func commit(hash string) map[string]string {
	const sha256Digits = 64
	if len(hash) == sha256Digits {
		return map[string]string{"sha256": hash}
	}
	return map[string]string{"sha1": hash}
}

func sameDigest(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}
