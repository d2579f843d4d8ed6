package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/openbuildkit/buildkit/solver/provenance"
)

// readProvenanceEnv returns what the files *.json of a folder tell of the daemon, merged in the order
// of their names; of a key that several have, what the last says. A folder that is not there is
// empty.
func readProvenanceEnv(dir string) (map[string]any, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("provenance environment %s: %w", dir, err)
	}
	env := map[string]any{}
	for _, name := range slices.Sorted(slices.Values(files)) {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("provenance environment: %w", err)
		}
		var own map[string]any
		if err := json.Unmarshal(data, &own); err != nil {
			return nil, fmt.Errorf("provenance environment %s: %w", name, err)
		}
		if err := provenance.CheckEnv(own); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		maps.Copy(env, own)
	}
	return env, nil
}
