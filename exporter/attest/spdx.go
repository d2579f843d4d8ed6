//go:build linux

package attest

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/exporter"
)

// LayersOf returns which layer each of some files of an image is in, by their clean absolute paths.
// Files that are in none may be missing.
type LayersOf func(files map[string]bool) (map[string]digest.Digest, error)

// IsCore reports whether the predicate is the bill of materials in SPDX of a part of a result itself.
func (p Predicate) IsCore() bool {
	core := string(p.Metadata[exporter.AttestationSBOMCore])
	stem, _, _ := strings.Cut(p.Name, ".")
	return p.Type == PredicateSPDX && string(p.Metadata[exporter.AttestationReason]) == exporter.ReasonSBOM && core != "" && core == stem
}

// Supplement adds to a bill of materials what only the exporter knows: the layer of each file, as its
// comment unless it has one, and tool among those that made the document. One that is not of the
// form of SPDX 2 is left as it is: it is the scanner's.
func (p *Predicate) Supplement(tool string, layersOf LayersOf) error {
	var doc map[string]json.RawMessage
	var version string
	if json.Unmarshal(p.Body, &doc) != nil || json.Unmarshal(doc["spdxVersion"], &version) != nil || !strings.HasPrefix(version, "SPDX-2.") {
		return nil //nolint:nilerr // see above
	}
	if info, ok := withCreator(doc["creationInfo"], "Tool: "+tool); ok {
		doc["creationInfo"] = info
	}
	files, err := withLayers(doc["files"], layersOf)
	if err != nil {
		return err
	}
	if files != nil {
		doc["files"] = files
	}
	p.Body, err = json.Marshal(doc)
	return err
}

// withCreator returns the information on the making of a document with one more creator; not ok if
// it has not the form.
func withCreator(data json.RawMessage, creator string) (json.RawMessage, bool) {
	var info map[string]json.RawMessage
	var creators []string
	if json.Unmarshal(data, &info) != nil || json.Unmarshal(info["creators"], &creators) != nil {
		return nil, false
	}
	encoded, err := json.Marshal(append(creators, creator))
	if err != nil {
		return nil, false
	}
	info["creators"] = encoded
	out, err := json.Marshal(info)
	return out, err == nil
}

// withLayers returns the files of a document with their layers; nil if nothing is to be changed.
func withLayers(data json.RawMessage, layersOf LayersOf) (json.RawMessage, error) {
	var files []map[string]json.RawMessage
	if json.Unmarshal(data, &files) != nil {
		return nil, nil //nolint:nilerr // it is left as it is
	}
	names := make([]string, len(files))
	wanted := map[string]bool{}
	for i, f := range files {
		var name, comment string
		if _, there := f["comment"]; there && (json.Unmarshal(f["comment"], &comment) != nil || comment != "") {
			continue
		}
		if json.Unmarshal(f["fileName"], &name) == nil && name != "" {
			names[i] = path.Clean("/" + name)
			wanted[names[i]] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	layers, err := layersOf(wanted)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if layer, ok := layers[names[i]]; ok {
			if f["comment"], err = json.Marshal("layerID: " + layer.String()); err != nil {
				return nil, err
			}
		}
	}
	return json.Marshal(files)
}
