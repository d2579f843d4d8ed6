// Package attestation reads which attestations a build asks for, and has software bills of
// materials made by scanners.
//
// Frontends that know of what their result was made use it, and the solver does for the results of
// those that do not. Nothing is read or executed here: a scanner is an image of the user's choice,
// run as a step of the build in a container of its own.
package attestation

import (
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The types of attestations that a request may ask for.
const (
	TypeProvenance = "provenance"
	TypeSBOM       = "sbom"
)

// Requested returns the attributes of each type of attestation that the options of a frontend ask
// for, as attest:TYPE or as the build argument BUILDKIT_ATTEST_TYPE; the former goes first. An
// unknown type is an error.
func Requested(opts map[string]string) (map[string]map[string]string, error) {
	const option, argument = "attest:", "build-arg:BUILDKIT_ATTEST_"
	found := map[string]string{}
	for k, v := range opts {
		if typ, ok := strings.CutPrefix(k, argument); ok {
			if _, given := found[strings.ToLower(typ)]; !given {
				found[strings.ToLower(typ)] = v
			}
		}
		if typ, ok := strings.CutPrefix(k, option); ok {
			found[typ] = v
		}
	}
	out := map[string]map[string]string{}
	for _, typ := range slices.Sorted(maps.Keys(found)) {
		if typ != TypeProvenance && typ != TypeSBOM {
			return nil, fmt.Errorf("unknown attestation type %q", typ)
		}
		attrs, err := parseAttrs(found[typ])
		if err != nil {
			return nil, fmt.Errorf("failed to parse attestation %s: %w", typ, err)
		}
		if attrs != nil {
			out[typ] = attrs
		}
	}
	return out, nil
}

// parseAttrs reads key=value pairs with commas between them; nil if the attestation is switched off.
func parseAttrs(v string) (map[string]string, error) {
	attrs := map[string]string{}
	if v == "" {
		return attrs, nil
	}
	if on, err := strconv.ParseBool(v); err == nil {
		if !on {
			return nil, nil
		}
		return attrs, nil
	}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			key, value = "type", f
		}
		attrs[strings.TrimSpace(key)] = value
	}
	if off, err := strconv.ParseBool(attrs["disabled"]); err == nil && off {
		return nil, nil
	}
	return attrs, nil
}
