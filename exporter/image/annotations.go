package image

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"

	"github.com/openbuildkit/buildkit/exporter"
)

// Place is what an annotation is put on.
type Place string

// The places of annotations.
const (
	OnManifest           Place = "manifest"
	OnManifestDescriptor Place = "manifest-descriptor"
	OnIndex              Place = "index"
	OnIndexDescriptor    Place = "index-descriptor"
)

// Annotations are texts for manifests, indexes and their descriptors. The zero value is empty.
type Annotations struct {
	all []annotation
}

type annotation struct {
	place Place
	// platform is empty for all.
	platform   string
	key, value string
}

var annotationKey = regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)

// parse reads an attribute or a metadata key, in the form annotation[-place][[platform]].key. It
// reports false if it is none.
func (a *Annotations) parse(k, v string) (bool, error) {
	if !strings.HasPrefix(k, annotationKeyword) {
		return false, nil
	}
	m := annotationKey.FindStringSubmatch(k)
	if m == nil {
		return false, nil
	}
	an := annotation{place: Place(m[1]), key: m[3], value: v}
	switch an.place {
	case "":
		an.place = OnManifest
	case OnManifest, OnManifestDescriptor, OnIndex, OnIndexDescriptor:
	default:
		return true, fmt.Errorf("unrecognized annotation type %s", m[1])
	}
	if m[2] != "" {
		p, err := platforms.Parse(m[2])
		if err != nil {
			return true, fmt.Errorf("invalid platform of annotation %q: %w", k, err)
		}
		an.platform = platforms.FormatAll(platforms.Normalize(p))
	}
	a.all = append(a.all, an)
	return true, nil
}

// misspelledAnnotation reports whether an attribute that parse does not know was meant for it.
func misspelledAnnotation(k string) bool {
	rest, ok := strings.CutPrefix(k, annotationKeyword)
	return ok && rest != "" && strings.ContainsRune("-.[", rune(rest[0]))
}

// merged returns the annotations with those of a result, which go before.
func (a Annotations) merged(res *exporter.Result) (Annotations, error) {
	m := Annotations{all: slices.Clone(a.all)}
	for _, k := range slices.Sorted(maps.Keys(res.Metadata)) {
		if _, err := m.parse(k, string(res.Metadata[k])); err != nil {
			return Annotations{}, err
		}
	}
	return m, nil
}

// on returns what is put on a place, for a platform where the place is one platform's. What names
// the platform goes before what names none.
func (a Annotations) on(place Place, platform string) map[string]string {
	var out map[string]string
	for _, want := range []string{"", platform} {
		for _, an := range a.all {
			if an.place != place || an.platform != want {
				continue
			}
			if out == nil {
				out = map[string]string{}
			}
			out[an.key] = an.value
		}
	}
	return out
}

// checkTypes finds annotations that the format has no place for.
func (a Annotations) checkTypes(ociTypes bool) error {
	for _, an := range a.all {
		if !ociTypes && an.place != OnManifest {
			return fmt.Errorf("cannot export annotations with %q", AttrOCITypes+"=false")
		}
	}
	return nil
}

// check finds annotations that have no place in the image.
func (a Annotations) check(parts []exporter.Part, index, ociTypes bool) error {
	if err := a.checkTypes(ociTypes); err != nil {
		return err
	}
	ids := map[string]bool{"": true}
	for _, p := range parts {
		ids[formatID(p)] = true
	}
	for _, an := range a.all {
		onIndex := an.place == OnIndex || an.place == OnIndexDescriptor
		switch {
		case onIndex && !index:
			return errors.New("index annotations not supported for single platform export")
		case index && !ids[an.platform]:
			return fmt.Errorf("invalid annotation: no platform %s found in source", an.platform)
		}
	}
	return nil
}

func formatID(p exporter.Part) string {
	return platforms.FormatAll(platforms.Normalize(p.Platform.Platform))
}
