// Package provenance states how a part of a result was built, as SLSA provenance: from which
// materials, by which frontend with which options, with which graph.
//
// A Capture is filled from what the solver has resolved and run, not from what was asked for; Build
// adds what holds for the build as a whole, and its Predicate is the JSON in one of two versions
// and two modes. The package reads no files and asks nobody. Values of secrets never reach it, and
// credentials in urls are taken out of everything that it is given.
//
// The formats are https://slsa.dev/spec/v1.0/provenance and https://slsa.dev/spec/v0.2/provenance,
// with the extensions of BuildKit that
// https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md describes.
package provenance

import (
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Version is a version of the predicate.
type Version string

// The versions.
const (
	V1  Version = "v1"
	V02 Version = "v0.2"
)

// PredicateType returns the type of predicates of the version.
func (v Version) PredicateType() string { return "https://slsa.dev/provenance/" + string(v) }

// Options says what is to be told and in which form.
type Options struct {
	// Max tells build arguments, secrets, the graph and where layers come from; otherwise the least
	// that is useful is told.
	Max     bool
	Version Version
	// BuilderID is who is said to have built.
	BuilderID string
	// Filename is the name of the file where the output has one.
	Filename string
	// Reproducible is the claim that the build yields the same again.
	Reproducible bool
	// InlineOnly is for outputs that can hold provenance without changing their shape.
	InlineOnly bool
	// CaptureUsage asks for samples of the resources that steps took.
	CaptureUsage bool
	// Complete makes it an error if a material is not known for certain.
	Complete bool
}

const defaultFilename = "provenance.json"

// ParseOptions reads the attributes of a request for provenance. Unknown ones are ignored.
func ParseOptions(attrs map[string]string) (Options, error) {
	o := Options{Max: true, Version: V1, Filename: defaultFilename}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if err := o.parse(k, attrs[k]); err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

func (o *Options) parse(k, v string) (err error) {
	flags := map[string]*bool{
		"reproducible": &o.Reproducible, "inline-only": &o.InlineOnly,
		"capture-usage": &o.CaptureUsage, "complete-materials": &o.Complete,
	}
	switch k {
	case "mode":
		switch v {
		case "min":
			o.Max = false
		case "max", "full":
			o.Max = true
		default:
			return fmt.Errorf("invalid mode %q", v)
		}
	case "version":
		switch o.Version = Version(v); o.Version {
		case V1, V02:
		default:
			return fmt.Errorf("invalid provenance SLSA version: %s", v)
		}
	case "builder-id":
		o.BuilderID = v
	case "filename":
		if v == "" || strings.ContainsAny(v, "/\\\x00") || v == "." || v == ".." {
			return fmt.Errorf("invalid provenance filename %q", v)
		}
		o.Filename = v
	default:
		if on := flags[k]; on != nil {
			if *on, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("failed to parse %s flag: %w", k, err)
			}
		}
	}
	return nil
}

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
