// Package version tells what the programs were built from. The build stamps the values in with
// the linker; nothing else sets them.
package version

// Package is the module of the programs.
const Package = "github.com/openbuildkit/buildkit"

// Stamped in by the build.
var (
	// Version is a release, or where the source stood after one.
	Version = "v0.0.0+unknown"
	// Revision is the commit, with a mark if the tree was changed; empty if not known.
	Revision = ""
)

// Line is what a program called name prints for its version.
func Line(name string) string {
	return name + " " + Package + " " + Version + " " + Revision
}
