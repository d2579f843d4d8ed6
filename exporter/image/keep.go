package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/exporter"
)

// Unpacker makes the trees of images for who runs containers from them.
type Unpacker interface {
	// Snapshotter is the name of the snapshotter that has the trees, as the garbage collector of
	// the content store knows it.
	Snapshotter() string
	// Unpack applies layers, of which there is one at least, lowest first, so that the snapshot of
	// each goes by its chain id. What is there is kept. Snapshots belong to the lease of ctx.
	Unpack(ctx context.Context, layers []UnpackLayer) error
}

// UnpackLayer is a layer whose blob is in the content store.
type UnpackLayer struct {
	Blob   ocispec.Descriptor
	DiffID digest.Digest
}

// naming says under which names an image is kept in the worker's store of images.
type naming struct {
	store, unpack bool
	// canonical adds each name with the digest.
	canonical bool
	// danglingPrefix, if not empty, is a name that the digest is added to; danglingOnly gives it
	// to images without other names only.
	danglingPrefix string
	danglingOnly   bool
	// incomplete leaves layers where they are.
	incomplete bool
}

// keep gives an image its names in the worker's store and returns them, those for one digest only
// being left out where they follow from others.
func (s *Store) keep(ctx context.Context, img *Image, names []string, n naming, env exporter.Env) ([]string, error) {
	if n.danglingPrefix != "" && (len(names) == 0 || !n.danglingOnly) {
		names = append(names[:len(names):len(names)], n.danglingPrefix+"@"+img.Descriptor.Digest.String())
	}
	if len(names) == 0 {
		return nil, nil
	}
	ctx = img.Leased(ctx)
	if img.Epoch != nil {
		ctx = epoch.WithSourceDateEpoch(ctx, img.Epoch)
	}
	if !n.incomplete {
		if err := fetchAll(ctx, img.Provider, img.Descriptor); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		all := []string{name}
		if n.canonical && !strings.Contains(name, "@") {
			all = append(all, name+"@"+img.Descriptor.Digest.String())
		}
		for _, name := range all {
			done := env.Scope.Step("naming to " + name)
			if err := done(s.tag(ctx, name, img.Descriptor)); err != nil {
				return nil, fmt.Errorf("name the image %s: %w", name, err)
			}
		}
	}
	if !n.unpack || s.Unpacker == nil {
		return names, nil
	}
	return names, s.unpack(ctx, img, names[0], env)
}

// tag makes a name stand for an image, whatever it stood for before.
func (s *Store) tag(ctx context.Context, name string, desc ocispec.Descriptor) error {
	record := images.Image{Name: name, Target: desc}
	// Somebody else may create or remove the name at the same time.
	for {
		_, err := s.Images.Update(ctx, record, "target")
		if !errdefs.IsNotFound(err) {
			return err
		}
		if _, err = s.Images.Create(ctx, record); !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
}

// maxFetches is how many blobs of one manifest are fetched at once.
const maxFetches = 4

// fetchAll has everything that belongs to an image here.
func fetchAll(ctx context.Context, from content.Provider, desc ocispec.Descriptor) error {
	ra, err := from.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	if err := ra.Close(); err != nil {
		return err
	}
	children, err := images.Children(ctx, from, desc)
	if err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxFetches)
	for _, child := range children {
		eg.Go(func() error { return fetchAll(ctx, from, child) })
	}
	return eg.Wait()
}

// unpack makes the tree of the platform that fits this machine best, and ties it to the image.
func (s *Store) unpack(ctx context.Context, img *Image, name string, env exporter.Env) error {
	manifest, err := images.Manifest(ctx, img.Provider, img.Descriptor, platforms.Only(env.Platform))
	if errdefs.IsNotFound(err) {
		env.Scope.Warn(event.Warning{Short: []byte(
			"image is not unpacked: none of its platforms is " + platforms.FormatAll(env.Platform))})
		return nil
	}
	if err != nil {
		return err
	}
	done := env.Scope.Step("unpacking to " + name)
	return done(s.unpackManifest(ctx, img, manifest))
}

func (s *Store) unpackManifest(ctx context.Context, img *Image, manifest ocispec.Manifest) error {
	diffIDs, err := images.RootFS(ctx, img.Provider, manifest.Config)
	if err != nil {
		return err
	}
	if len(diffIDs) == 0 && len(manifest.Layers) == 0 {
		return nil
	}
	if len(diffIDs) != len(manifest.Layers) {
		return fmt.Errorf("image has %d layers and %d diff ids", len(manifest.Layers), len(diffIDs))
	}
	layers := make([]UnpackLayer, len(diffIDs))
	for i, l := range manifest.Layers {
		if err := fetchAll(ctx, img.Provider, l); err != nil {
			return err
		}
		layers[i] = UnpackLayer{l, diffIDs[i]}
	}
	if err := s.Unpacker.Unpack(ctx, layers); err != nil {
		return fmt.Errorf("unpack the image: %w", err)
	}
	key := "containerd.io/gc.ref.snapshot." + s.Unpacker.Snapshotter()
	_, err = s.Content.Update(ctx, content.Info{
		Digest: manifest.Config.Digest,
		Labels: map[string]string{key: identity.ChainID(diffIDs).String()},
	}, "labels."+key)
	return err
}
