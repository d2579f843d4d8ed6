// Package plain reads what buildctl prints as plain progress, for tests and developer programs
// that want to know which steps ran. It is no contract: programs that need one use rawjson.
package plain

import (
	"fmt"
	"slices"
	"strings"
)

// Executed returns the names of the steps that ran, in the order in which they ended. Base images
// are left out: what their name stands for is looked up in every build.
func Executed(text string) []string {
	return slices.DeleteFunc(steps(text, "DONE"), func(name string) bool { return strings.Contains(name, "] FROM ") })
}

// Cached returns the names of the steps whose results came from the cache, in the order printed.
func Cached(text string) []string { return steps(text, "CACHED") }

// steps returns the names of the steps that ended with a word. A step of a build has a name like
// "[stage 2/3] RUN true"; what the daemon does besides, loading or exporting, is left out.
func steps(text, end string) []string {
	names := map[string]string{}
	var found []string
	for line := range strings.Lines(text) {
		var number int
		if n, _ := fmt.Sscanf(line, "#%d ", &number); n != 1 {
			continue
		}
		id, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, ok := names[id]; !ok {
			names[id] = rest
		}
		if word, _, _ := strings.Cut(rest, " "); word == end && isStep(names[id]) {
			found = append(found, names[id])
		}
	}
	return found
}

func isStep(name string) bool {
	label, _, ok := strings.Cut(name, "]")
	// Several platforms are told apart: "[linux/arm64 internal]".
	return ok && strings.HasPrefix(label, "[") && label != "[auth" && label != "[internal" && !strings.HasSuffix(label, " internal")
}
