// Package hack_test checks that what is committed fits together: generated code and its sources,
// the docs and what they point to.
package hack_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGeneratedCodeIsWhatTheProtosGive(t *testing.T) {
	generated := t.TempDir()
	script, err := filepath.Abs("generate.sh")
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), script, generated).CombinedOutput()
	require.NoError(t, err, "hack/generate.sh: %s", out)

	fresh := generatedFiles(t, filepath.Join(generated, "api"))
	committed := generatedFiles(t, filepath.Join("..", "api"))
	require.NotEmpty(t, fresh)
	for name := range committed {
		require.Contains(t, fresh, name, "committed, but no .proto gives it")
	}
	for name, code := range fresh {
		require.Contains(t, committed, name, "run `make generate` and commit the result")
		if code != committed[name] {
			t.Errorf("%s differs: run `make generate` and commit the result", name)
		}
	}
}

// generatedFiles returns the text of every generated file below dir by its path from there.
func generatedFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = string(code)
		return err
	})
	require.NoError(t, err)
	return files
}
