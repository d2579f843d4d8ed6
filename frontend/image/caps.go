package image

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/status"
)

// Labels of images of frontends.
const (
	labelCaps      = "moby.buildkit.frontend.caps"
	labelNoNetwork = "moby.buildkit.frontend.network.none"
)

// capInputs is required of a frontend that is given inputs.
const capInputs = "moby.buildkit.frontend.inputs"

// takeInputs are images from before there was a label, which know inputs all the same.
var takeInputs = []digest.Digest{
	"sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
	"sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
	"sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
	"sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
}

// checkCaps fails for a capability that is required and that the image does not declare. required
// is a list of names, separated by commas.
func (img *image) checkCaps(required string, inputs bool) error {
	declared := capNames(img.config.Labels[labelCaps])
	if slices.Contains(takeInputs, img.digest) {
		declared = append(declared, capInputs)
	}
	names := capNames(required)
	if inputs {
		names = append(names, capInputs)
	}
	for _, name := range names {
		if !slices.Contains(declared, name) {
			return &status.FrontendCapError{Name: name}
		}
	}
	return nil
}

// capNames returns the names of a list, without what stands behind a plus sign.
func capNames(list string) []string {
	var names []string
	for item := range strings.SplitSeq(list, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(item), "+")
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}
