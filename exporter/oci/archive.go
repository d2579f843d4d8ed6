package oci

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	refspec "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An archive has the files of an OCI image layout (image-spec, image-layout.md) in the order of
// their names, and manifest.json for `docker load`, which tells of one image. Blobs are not
// digested once more on the way: the content store has done that when it took them.

// layout writes an archive.
type layout struct {
	provider content.Provider
	// blobs are what belongs to the image.
	blobs map[digest.Digest]ocispec.Descriptor
	// docs are the files that describe it.
	docs map[string]doc
}

type doc struct {
	data []byte
	mode int64
}

// newLayout reads what belongs to an image. The manifest is listed once for each name.
func newLayout(ctx context.Context, provider content.Provider, top ocispec.Descriptor, names []string, docker bool) (*layout, error) {
	l := &layout{provider: provider, blobs: map[digest.Digest]ocispec.Descriptor{}, docs: map[string]doc{}}
	if err := l.collect(ctx, top); err != nil {
		return nil, err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range names {
		d := top
		d.Annotations = map[string]string{}
		maps.Copy(d.Annotations, top.Annotations)
		d.Annotations[images.AnnotationImageName] = name
		d.Annotations[ocispec.AnnotationRefName] = refName(name)
		index.Manifests = append(index.Manifests, d)
	}
	if len(names) == 0 {
		index.Manifests = []ocispec.Descriptor{top}
	}
	err := errors.Join(
		l.describe(ocispec.ImageLayoutFile, 0o444, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}),
		l.describe(ocispec.ImageIndexFile, 0o644, index),
	)
	if err == nil && docker && images.IsManifestType(top.MediaType) {
		err = l.describeForDocker(ctx, top, names)
	}
	return l, err
}

// refName is the tag of a name, or the whole of it if there is none.
func refName(name string) string {
	ref, err := refspec.Parse(name)
	if err != nil || ref.Object == "" || ref.Object[0] == '@' {
		return name
	}
	return ref.Object
}

// collect notes a blob and everything that it refers to.
func (l *layout) collect(ctx context.Context, desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q of an image: %w", desc.Digest, err)
	}
	if _, ok := l.blobs[desc.Digest]; ok {
		return nil
	}
	l.blobs[desc.Digest] = desc
	children, err := images.Children(ctx, l.provider, desc)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := l.collect(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) describe(name string, mode int64, v any) error {
	data, err := json.Marshal(v)
	l.docs[name] = doc{data, mode}
	return err
}

// describeForDocker adds manifest.json.
func (l *layout) describeForDocker(ctx context.Context, desc ocispec.Descriptor, names []string) error {
	data, err := content.ReadBlob(ctx, l.provider, desc)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return err
	}
	type image struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	img := image{Config: blobPath(manifest.Config.Digest)}
	for _, layer := range manifest.Layers {
		img.Layers = append(img.Layers, blobPath(layer.Digest))
	}
	for _, name := range names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("failed to parse image name %q: %w", name, err)
		}
		img.RepoTags = append(img.RepoTags, reference.FamiliarString(reference.TagNameOnly(ref)))
	}
	return l.describe("manifest.json", 0o644, []image{img})
}

func blobPath(dgst digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded())
}

// write writes the archive.
func (l *layout) write(ctx context.Context, w io.Writer) error {
	out := tar.NewWriter(w)
	folders := map[string]bool{ocispec.ImageBlobsDir + "/": true}
	blobs := map[string]ocispec.Descriptor{}
	for dgst, desc := range l.blobs {
		name := blobPath(dgst)
		folders[path.Dir(name)+"/"] = true
		blobs[name] = desc
	}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}); err != nil {
			return err
		}
	}
	buf := make([]byte, copySize)
	for _, name := range slices.Sorted(maps.Keys(blobs)) {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: blobs[name].Size, Mode: 0o444}); err != nil {
			return err
		}
		if err := l.copyBlob(ctx, out, blobs[name], buf); err != nil {
			return fmt.Errorf("export %s: %w", blobs[name].Digest, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.docs)) {
		d := l.docs[name]
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(d.data)), Mode: d.mode}); err != nil {
			return err
		}
		if _, err := out.Write(d.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// copySize is how much of a blob is read at once.
const copySize = 1 << 20

func (l *layout) copyBlob(ctx context.Context, w io.Writer, desc ocispec.Descriptor, buf []byte) error {
	ra, err := l.provider.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if ra.Size() != desc.Size {
		return fmt.Errorf("it has %d bytes, not %d", ra.Size(), desc.Size)
	}
	for at := int64(0); at < desc.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := ra.ReadAt(buf[:min(int64(len(buf)), desc.Size-at)], at)
		at += int64(n)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if err != nil && at < desc.Size {
			return err
		}
	}
	return nil
}
