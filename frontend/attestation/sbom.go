package attestation

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/distribution/reference"
)

// PredicateSPDX is the type of software bills of materials in SPDX.
const PredicateSPDX = "https://spdx.dev/Document"

// defaultGenerator is the scanner of builds that name none.
const defaultGenerator = "docker/buildkit-syft-scanner:stable-1"

// attributes of a request for a software bill of materials that are no parameters of the scanner.
var ownAttrs = []string{"generator", "type", "disabled"}

// SBOM is a request for software bills of materials.
type SBOM struct {
	// Generator is the full reference of the image of the scanner.
	Generator string
	// Params are handed to the scanner as BUILDKIT_SCAN_NAME=value.
	Params map[string]string
}

// ParseSBOM reads the attributes of a request for software bills of materials.
func ParseSBOM(attrs map[string]string) (*SBOM, error) {
	generator, given := attrs["generator"]
	if !given {
		generator = defaultGenerator
	}
	if generator == "" {
		return nil, errors.New("sbom generator cannot be empty")
	}
	named, err := reference.ParseNormalizedNamed(generator)
	if err != nil {
		return nil, fmt.Errorf("failed to parse sbom generator %s: %w", generator, err)
	}
	s := &SBOM{Generator: reference.TagNameOnly(named).String(), Params: map[string]string{}}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if !slices.Contains(ownAttrs, k) {
			s.Params[k] = attrs[k]
		}
	}
	return s, nil
}

// RequestedSBOM returns the request for software bills of materials among the options of a frontend;
// nil if there is none.
func RequestedSBOM(opts map[string]string) (*SBOM, error) {
	all, err := Requested(opts)
	if err != nil {
		return nil, err
	}
	attrs, ok := all[TypeSBOM]
	if !ok {
		return nil, nil
	}
	return ParseSBOM(attrs)
}
