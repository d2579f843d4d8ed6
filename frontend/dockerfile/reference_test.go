package dockerfile_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheReferenceNamesEveryTest holds docs/reference/dockerfile.md to what there is: each of its
// sections names tests, which exist, and each test of the frontend and each story is named.
func TestTheReferenceNamesEveryTest(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/dockerfile.md")
	require.NoError(t, err)
	named := map[string]bool{}
	for _, section := range regexp.MustCompile(`(?m)^##+ `).Split(string(text), -1)[1:] {
		title, body, _ := strings.Cut(section, "\n")
		if title == "Instructions" {
			continue // its sections have them
		}
		_, tests, ok := strings.Cut(body, "\nTests: ")
		require.True(t, ok, "%s: no tests", title)
		for _, m := range regexp.MustCompile("`([A-Za-z0-9-]+)`").FindAllStringSubmatch(tests, -1) {
			named[m[1]] = true
		}
	}
	own, all := map[string]bool{}, map[string]bool{}
	stories, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	for _, story := range stories {
		name := strings.TrimSuffix(filepath.Base(story), ".txtar")
		own[name], all[name] = true, true
	}
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	test := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	require.NoError(t, filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		abs, err := filepath.Abs(p)
		for _, m := range test.FindAllSubmatch(source, -1) {
			all[string(m[1])] = true
			if strings.HasPrefix(abs, here+string(filepath.Separator)) {
				own[string(m[1])] = true
			}
		}
		return err
	}))
	delete(own, t.Name())
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !all[name] {
			t.Errorf("the reference names a test that there is not: %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if !named[name] {
			t.Errorf("the reference does not name %s", name)
		}
	}
}
