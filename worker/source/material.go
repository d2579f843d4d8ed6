package source

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaterialKind is what a material is.
type MaterialKind uint8

// The kinds of materials.
const (
	// MaterialImage is an image, or with Blob one blob of a repository.
	MaterialImage MaterialKind = iota + 1
	MaterialGit
	MaterialHTTP
	// MaterialLocal is a folder of the client, of which nothing but the name is known.
	MaterialLocal
)

// Material is a source as provenance tells of it.
type Material struct {
	Kind MaterialKind
	// Name is the reference of an image, the url of a repository with its ref, the url of a file,
	// or the name of a folder. It holds no credentials.
	Name string
	// Platform is that of an image.
	Platform *ocispec.Platform
	// Layout is set if the image is not from a registry but from a layout of the client's.
	Layout bool
	// Blob is set if one blob was taken and not an image.
	Blob bool
	// Bundle is where a repository was taken from instead of its remote; nil for the remote.
	Bundle *Material
	// Digest is that of the image, blob or file, or the commit in hexadecimal digits.
	Digest string

	// Secrets and SSH are the ids of what may be used to get it.
	Secrets, SSH []string
}

// Materialer is an Identifier that can be told of in provenance. Pin is that of the key.
type Materialer interface {
	Material(pin string) Material
}

// ImageMaterial returns the material of an image, of a registry or a layout.
func ImageMaterial(ref string, platform ocispec.Platform, dgst string, layout bool) Material {
	return Material{Kind: MaterialImage, Name: ref, Platform: &platform, Digest: dgst, Layout: layout}
}
