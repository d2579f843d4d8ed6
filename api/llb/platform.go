package pb

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FromSpec returns the message of an OCI platform. Nothing is normalised.
func FromSpec(p ocispec.Platform) *Platform {
	return &Platform{
		OS:           p.OS,
		Architecture: p.Architecture,
		Variant:      p.Variant,
		OSVersion:    p.OSVersion,
		OSFeatures:   slices.Clone(p.OSFeatures),
	}
}

// Spec returns the OCI platform of the message, the zero one for nil. Nothing is normalised.
func (x *Platform) Spec() ocispec.Platform {
	return ocispec.Platform{
		OS:           x.GetOS(),
		Architecture: x.GetArchitecture(),
		Variant:      x.GetVariant(),
		OSVersion:    x.GetOSVersion(),
		OSFeatures:   slices.Clone(x.GetOSFeatures()),
	}
}
