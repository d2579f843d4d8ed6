package local_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/worker/source/local"
)

// FuzzParse holds that an identifier is refused or read, and that what it is shown as is read again.
func FuzzParse(f *testing.F) {
	for _, ref := range []string{"context", "../x", ""} {
		f.Add(ref, "local.includepattern", `["a"]`)
	}
	s := local.New(local.Config{})
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	f.Fuzz(func(t *testing.T, ref, key, value string) {
		attrs := map[string]string{key: value}
		id, err := s.Parse("local", ref, attrs, platform)
		if err != nil {
			return
		}
		shown := id.String()[len("local://"):]
		again, err := s.Parse("local", shown, attrs, platform)
		if err != nil || again.String() != id.String() {
			t.Fatalf("%q is shown as %q: %v", ref, shown, err)
		}
	})
}
