package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/gofrs/flock"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Keys of an exporter's response.
const (
	responseDescriptor = "containerimage.descriptor"
	responseNames      = "image.name"
)

// annotationImageName holds the full name of an image in an index; that of OCI is only the tag.
const annotationImageName = "io.containerd.image.name"

const defaultTag = "latest"

// tagLayout names the image that a build has put into the OCI layout at dir.
func tagLayout(dir string, response map[string]string) error {
	text, ok := response[responseDescriptor]
	if !ok {
		return nil
	}
	dt, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("decode %s: %w", responseDescriptor, err)
	}
	var desc ocispec.Descriptor
	if err := json.Unmarshal(dt, &desc); err != nil {
		return fmt.Errorf("decode %s: %w", responseDescriptor, err)
	}
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("decode %s: %w", responseDescriptor, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())); err != nil {
		// The answer of an exporter that was chosen late hides that of the layout.
		return fmt.Errorf("the image in %s gets no name: what the daemon tells of is another one: %w", dir, err)
	}
	entries, err := indexEntries(desc, response[responseNames])
	if err != nil {
		return err
	}
	return addToIndex(dir, entries)
}

// indexEntries returns an entry for each of the names, which are separated by commas; without
// names one with the default tag.
func indexEntries(desc ocispec.Descriptor, names string) ([]ocispec.Descriptor, error) {
	entry := func(name, tag string) ocispec.Descriptor {
		e := desc
		e.Annotations = map[string]string{}
		for k, v := range desc.Annotations {
			e.Annotations[k] = v
		}
		if name != "" {
			e.Annotations[annotationImageName] = name
		}
		e.Annotations[ocispec.AnnotationRefName] = tag
		return e
	}
	if names == "" {
		return []ocispec.Descriptor{entry("", defaultTag)}, nil
	}
	var out []ocispec.Descriptor
	for _, name := range strings.Split(names, ",") {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, fmt.Errorf("image name %q: %w", name, err)
		}
		ref = reference.TagNameOnly(ref)
		tag := defaultTag
		if t, ok := ref.(reference.Tagged); ok {
			tag = t.Tag()
		}
		out = append(out, entry(ref.String(), tag))
	}
	return out, nil
}

// addToIndex puts entries into the index of the OCI layout at dir, in place of those with the same
// names. Other programs that do so wait for each other.
func addToIndex(dir string, entries []ocispec.Descriptor) (err error) {
	layout := filepath.Join(dir, ocispec.ImageLayoutFile)
	if _, err := os.Stat(layout); errors.Is(err, fs.ErrNotExist) {
		dt, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		if err != nil {
			return err
		}
		if err := os.WriteFile(layout, dt, 0o644); err != nil {
			return err
		}
	}
	lock := flock.New(layout, flock.SetFlag(os.O_RDWR))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", layout, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	path := filepath.Join(dir, ocispec.ImageIndexFile)
	index, err := readIndex(path)
	if err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(old ocispec.Descriptor) bool {
		return slices.ContainsFunc(entries, func(e ocispec.Descriptor) bool { return sameName(old, e) })
	})
	index.Manifests = append(index.Manifests, entries...)
	dt, err := json.Marshal(index)
	if err != nil {
		return err
	}
	tmp := path + ".tmp" // the lock makes it ours
	if err := os.WriteFile(tmp, dt, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readIndex(path string) (*ocispec.Index, error) {
	index := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	dt, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(dt, index); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return index, nil
}

func sameName(a, b ocispec.Descriptor) bool {
	return a.Annotations[annotationImageName] == b.Annotations[annotationImageName] &&
		a.Annotations[ocispec.AnnotationRefName] == b.Annotations[ocispec.AnnotationRefName]
}
