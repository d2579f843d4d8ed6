package layers

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path of the product's module.
const module = "github.com/openbuildkit/buildkit"

// folder is a top-level folder and what its packages may import of ours, besides the folder
// itself. An entry with a slash allows that package and those below it, not the whole folder.
type folder struct {
	row   int
	above []string
}

var ladder = map[string]folder{
	"api":      {row: 0},
	"session":  {row: 1, above: []string{"api"}},
	"snapshot": {row: 1, above: []string{"api"}},
	"cache":    {row: 2, above: []string{"api", "session", "snapshot"}},
	"client":   {row: 2, above: []string{"api", "session"}},
	"worker":   {row: 3, above: []string{"api", "session", "snapshot", "cache"}},
	"exporter": {row: 3, above: []string{"api", "session", "snapshot", "cache"}},
	"frontend": {row: 3, above: []string{"api", "client/llb", "client/gateway"}},
	"solver":   {row: 4, above: []string{"api", "session", "snapshot", "cache", "client", "worker", "exporter", "frontend"}},
	"cmd":      {row: 5, above: product},
	"examples": {row: 5, above: product},
	"hack":     {row: 5, above: product},
}

// product is every folder that a program is put together from.
var product = []string{"api", "session", "snapshot", "cache", "client", "worker", "exporter", "frontend", "solver"}

// forTests is what tests may import besides what their folder may: the harness drives whole
// programs, so only tests of composition roots have a use for it.
var forTests = map[string][]string{
	"cmd":      {"hack"},
	"examples": {"hack"},
}

// forbiddenNames say nothing of what a folder holds.
var forbiddenNames = []string{"common", "helper", "helpers", "lib", "misc", "pkg", "shared", "types", "util", "utils"}

// checkImport returns why the package importer may not import imported, both given as paths
// inside the module, or nil.
func checkImport(importer, imported string, test bool) error {
	from, to := top(importer), top(imported)
	law, ok := ladder[from]
	if !ok {
		return fmt.Errorf("%s: folder %s is not in the ladder", importer, from)
	}
	if from == to {
		return nil
	}
	allowed := law.above
	if test {
		allowed = slices.Concat(allowed, forTests[from])
	}
	for _, a := range allowed {
		if imported == a || strings.HasPrefix(imported, a+"/") {
			return nil
		}
	}
	return fmt.Errorf("%s imports %s; %s may import only %s", importer, imported, from, strings.Join(allowed, ", "))
}

// siblings returns the two folders, side by side in one folder, of which the first holds importer
// and the second imported. ok is false if there are none, as between a package and one below it.
func siblings(importer, imported string) (from, to string, ok bool) {
	a, b := strings.Split(importer, "/"), strings.Split(imported, "/")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return strings.Join(a[:i+1], "/"), strings.Join(b[:i+1], "/"), true
		}
	}
	return "", "", false
}

func top(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}
