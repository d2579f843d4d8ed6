package exporter

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
)

// Platforms is the value of KeyPlatforms.
type Platforms struct {
	Platforms []Platform
}

// Platform ties a platform to the id by which the result names it.
type Platform struct {
	ID       string
	Platform ocispec.Platform
}

// Part is the result for one platform. Ref is nil for the empty tree.
type Part struct {
	Platform
	Ref *cache.Ref
}

// Multi reports whether the result is one for each of a list of platforms, if only of one.
func (r *Result) Multi() bool { return r.Refs != nil }

// Parts returns the result by platform, in the order in which the frontend lists them. A result
// that does not tell its platform has that of its image config, or else def.
func (r *Result) Parts(def ocispec.Platform) ([]Part, error) {
	ps, err := r.platforms(def)
	if err != nil {
		return nil, err
	}
	if !r.Multi() {
		if len(ps) != 1 {
			return nil, fmt.Errorf("result has one tree for %d platforms", len(ps))
		}
		return []Part{{ps[0], r.Ref}}, nil
	}
	if len(ps) != len(r.Refs) {
		return nil, fmt.Errorf("number of platforms does not match references %d %d", len(ps), len(r.Refs))
	}
	parts := make([]Part, 0, len(ps))
	for _, p := range ps {
		ref, ok := r.Refs[p.ID]
		if !ok {
			return nil, fmt.Errorf("failed to find ref for ID %s", p.ID)
		}
		parts = append(parts, Part{p, ref})
	}
	return parts, nil
}

func (r *Result) platforms(def ocispec.Platform) ([]Platform, error) {
	if data, ok := r.Metadata[KeyPlatforms]; ok {
		return parsePlatforms(data)
	}
	if len(r.Refs) > 0 {
		return nil, errors.New("build result contains multiple refs without platforms mapping")
	}
	p := platforms.Normalize(def)
	if config := r.Metadata[KeyConfig]; len(config) > 0 {
		var own ocispec.Platform
		if err := json.Unmarshal(config, &own); err != nil {
			return nil, fmt.Errorf("failed to parse image config: %w", err)
		}
		switch {
		case own.OS == "" && own.Architecture == "":
		case own.OS == "", own.Architecture == "":
			return nil, errors.New("invalid image config: os and architecture must be specified together")
		default:
			p = platforms.Normalize(own)
		}
	}
	return []Platform{{ID: platforms.FormatAll(p), Platform: p}}, nil
}

func parsePlatforms(data []byte) ([]Platform, error) {
	var ps Platforms
	if err := json.Unmarshal(data, &ps); err != nil {
		return nil, fmt.Errorf("failed to parse platforms passed to exporter: %w", err)
	}
	if len(ps.Platforms) == 0 {
		return nil, errors.New("invalid empty platforms index for exporter")
	}
	seen := map[string]bool{}
	for _, p := range ps.Platforms {
		switch {
		case p.ID == "":
			return nil, errors.New("invalid empty platform key for exporter")
		case p.Platform.OS == "" || p.Platform.Architecture == "":
			return nil, fmt.Errorf("invalid platform value of %q for exporter: missing os or architecture", p.ID)
		case seen[p.ID]:
			return nil, fmt.Errorf("invalid platform %q for exporter: listed twice", p.ID)
		}
		seen[p.ID] = true
	}
	return ps.Platforms, nil
}

// Meta returns the metadata of a key for a platform: that of its id, or else the plain one; nil
// if there is neither.
func (r *Result) Meta(key, id string) []byte {
	if v, ok := r.Metadata[key+"/"+id]; ok {
		return v
	}
	return r.Metadata[key]
}
