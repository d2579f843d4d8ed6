package ocilayout_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/worker/source/ocilayout"
)

// FuzzParse holds that an identifier is refused or read, and that what it is shown as is read again.
func FuzzParse(f *testing.F) {
	for _, ref := range []string{"layout@sha256:0000000000000000000000000000000000000000000000000000000000000000", "a:b@sha256:00", "x"} {
		f.Add(ref, "oci.layerlimit", `1`)
	}
	s := ocilayout.New(ocilayout.Config{})
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	f.Fuzz(func(t *testing.T, ref, key, value string) {
		attrs := map[string]string{key: value}
		id, err := s.Parse("oci-layout", ref, attrs, platform)
		if err != nil {
			return
		}
		shown := id.String()[len("oci-layout://"):]
		again, err := s.Parse("oci-layout", shown, attrs, platform)
		if err != nil || again.String() != id.String() {
			t.Fatalf("%q is shown as %q: %v", ref, shown, err)
		}
	})
}
