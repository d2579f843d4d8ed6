package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg is what the tests read of the output of go list.
type pkg struct {
	ImportPath, Dir, Doc, Name         string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

// path returns the package's path inside the module.
func (p pkg) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// list returns every package of the module as a build for one system sees it.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,Doc,Name,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	var pkgs []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		pkgs = append(pkgs, p)
	}
	require.NotEmpty(t, pkgs)
	return pkgs
}

// ours returns the paths inside the module of those imports that are in it.
func ours(imports []string) []string {
	var paths []string
	for _, i := range imports {
		if path, ok := strings.CutPrefix(i, module+"/"); ok {
			paths = append(paths, path)
		}
	}
	return paths
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

func TestImportsOnlyGoUpTheLadder(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			for _, p := range list(t, goos) {
				for _, i := range ours(p.Imports) {
					if err := checkImport(p.path(), i, false); err != nil {
						t.Error(err)
					}
				}
				for _, i := range ours(slices.Concat(p.TestImports, p.XTestImports)) {
					if err := checkImport(p.path(), i, true); err != nil {
						t.Errorf("test of %v", err)
					}
				}
			}
		})
	}
}

func TestNoTwoFoldersImportEachOther(t *testing.T) {
	type edge struct{ from, to string }
	imports := map[edge]string{}
	for _, p := range list(t, "linux") {
		for _, i := range ours(p.Imports) {
			if from, to, ok := siblings(p.path(), i); ok {
				imports[edge{from, to}] = p.path() + " imports " + i
			}
		}
	}
	for e, why := range imports {
		if back, ok := imports[edge{e.to, e.from}]; ok && e.from < e.to {
			t.Errorf("%s and %s import each other: %s, %s", e.from, e.to, why, back)
		}
	}
}

func TestTheLadderItselfOnlyGoesUp(t *testing.T) {
	for name, law := range ladder {
		for _, above := range law.above {
			other, ok := ladder[top(above)]
			require.True(t, ok, "%s may import %s, which is not in the ladder", name, above)
			require.Less(t, other.row, law.row, "%s may import %s, which does not stand above it", name, above)
		}
	}
}

func TestTheLawTellsGoodImportsFromBad(t *testing.T) {
	for _, c := range []struct {
		name, importer, imported string
		test, bad                bool
	}{
		{name: "a folder may import from itself", importer: "solver/op", imported: "solver/key"},
		{name: "a folder may import what stands above", importer: "cache", imported: "snapshot/layer"},
		{name: "a frontend may build LLB", importer: "frontend/dockerfile", imported: "client/llb"},
		{name: "a frontend may not dial a daemon", importer: "frontend/dockerfile", imported: "client", bad: true},
		{name: "a name that only begins like an allowed one is another", importer: "frontend", imported: "client/llbx", bad: true},
		{name: "the wire contract imports nothing of ours", importer: "api/status", imported: "session", bad: true},
		{name: "a folder may not import its own row", importer: "session", imported: "snapshot", bad: true},
		{name: "a folder may not import what stands below", importer: "cache", imported: "solver", bad: true},
		{name: "a worker knows no client", importer: "worker", imported: "client/llb", bad: true},
		{name: "a folder nobody knows is refused", importer: "internal/x", imported: "api/llb", bad: true},
		{name: "a program may not use the harness", importer: "cmd/buildctl", imported: "hack/harness", bad: true},
		{name: "the test of a program may use the harness", importer: "cmd/buildctl", imported: "hack/harness", test: true},
		{name: "the test of a library may not use the harness", importer: "cache", imported: "hack/harness", test: true, bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkImport(c.importer, c.imported, c.test)
			require.Equal(t, c.bad, err != nil, "%v", err)
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "linux") {
		switch {
		case len(p.GoFiles) == 0: // only tests, or only for other systems
		case p.Name == "main" && !strings.HasPrefix(p.Doc, "Command "):
			t.Errorf("%s: its comment should begin with \"Command ...\": %q", p.path(), p.Doc)
		case p.Name != "main" && !strings.HasPrefix(p.Doc, "Package "+p.Name+" "):
			t.Errorf("%s: its comment should begin with \"Package %s ...\": %q", p.path(), p.Name, p.Doc)
		}
	}
}

func TestNoFolderHasANameThatSaysNothing(t *testing.T) {
	for _, p := range list(t, "linux") {
		for element := range strings.SplitSeq(p.path(), "/") {
			require.NotContains(t, forbiddenNames, element, p.path())
		}
	}
}

func TestTheOtherImplementationIsInNoModuleGraph(t *testing.T) {
	for _, dir := range []string{".", "hack/tools"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Path}}", "all")
		cmd.Dir = filepath.Join(root(t), dir)
		out, err := cmd.Output()
		require.NoError(t, err, "go list -m all in %s", dir)
		require.NotContains(t, strings.Fields(string(out)), "github.com/moby/buildkit", "in the module graph of %s", dir)
	}
}
