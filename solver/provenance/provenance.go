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
	// Unknown are the attributes that say nothing here, in order: those of a later version, or misspelt.
	Unknown []string
}

const defaultFilename = "provenance.json"

// ParseOptions reads the attributes of a request for provenance. Unknown ones are no error.
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
	case "disabled":
	case "type":
		if v != "provenance" {
			o.Unknown = append(o.Unknown, v)
		}
	default:
		on := flags[k]
		if on == nil {
			o.Unknown = append(o.Unknown, k)
			break
		}
		if *on, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("failed to parse %s flag: %w", k, err)
		}
	}
	return nil
}
