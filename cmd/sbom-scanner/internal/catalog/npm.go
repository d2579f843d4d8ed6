package catalog

import (
	"encoding/json"
	"errors"
	"io"
)

// maxManifest is how large a package.json may be, in bytes.
const maxManifest = 4 << 20

// parseNPM reads the package.json of an installed package, see
// https://docs.npmjs.com/cli/configuring-npm/package-json. One without a name or a version is no
// package but a marker within one.
func parseNPM(f *io.SectionReader, add func(Package) error) error {
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return err
	}
	if len(data) > maxManifest {
		return errors.New("the file is too large")
	}
	var p struct {
		Name    string          `json:"name"`
		Version string          `json:"version"`
		License json.RawMessage `json:"license"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	if p.Name == "" || p.Version == "" {
		return nil
	}
	return add(Package{Type: NPM, Name: p.Name, Version: p.Version, License: npmLicense(p.License)})
}

// npmLicense reads a license as it is written now, or as an object as it once was.
func npmLicense(data json.RawMessage) string {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return text
	}
	var old struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(data, &old)
	return old.Type
}
