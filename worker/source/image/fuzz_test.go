package image_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/worker/source/image"
)

// FuzzParse holds that an identifier is refused or read, and that what it is shown as is read again.
func FuzzParse(f *testing.F) {
	for _, ref := range []string{"busybox", "docker.io/library/busybox:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000", "host:5000/a/b:c"} {
		f.Add(ref, "image.layerlimit", `3`)
	}
	s := image.New(image.Config{})
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	f.Fuzz(func(t *testing.T, ref, key, value string) {
		attrs := map[string]string{key: value}
		id, err := s.Parse("docker-image", ref, attrs, platform)
		if err != nil {
			return
		}
		shown := id.String()[len("docker-image://"):]
		again, err := s.Parse("docker-image", shown, attrs, platform)
		if err != nil || again.String() != id.String() {
			t.Fatalf("%q is shown as %q: %v", ref, shown, err)
		}
	})
}
