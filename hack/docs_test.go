package hack_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	link     = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	testName = regexp.MustCompile(`\bTest[A-Z]\w+`)
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

func TestLinksOfTheDocsLeadSomewhere(t *testing.T) {
	for _, page := range files(t, ".md") {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(page), m[1]))
			require.NoError(t, err, "link in %s", page)
		}
	}
}

func TestEveryTestThatTheStatusNamesExists(t *testing.T) {
	exists := map[string]bool{}
	for _, file := range files(t, "_test.go") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			exists[m[1]] = true
		}
	}
	status, err := os.ReadFile("../docs/status.md")
	require.NoError(t, err)
	named := testName.FindAllString(string(status), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		require.True(t, exists[name], "docs/status.md names %s", name)
	}
}

// files returns the files of the tree whose names end so.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && len(entry.Name()) > 2 && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case strings.HasSuffix(path, suffix):
			found = append(found, path)
		}
		return nil
	})
	require.NoError(t, err)
	return found
}
