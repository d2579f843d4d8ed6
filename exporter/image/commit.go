package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
)

// Image is an image that was made.
type Image struct {
	// Descriptor is that of the manifest or index.
	Descriptor ocispec.Descriptor
	// Config is that of the config of an image for one platform; nil for an index.
	Config *ocispec.Descriptor
	// Epoch is the time that the image is said to be made, nil if nobody said one.
	Epoch *time.Time
	// Provider reads everything that belongs to the image, fetching layers that are not here.
	Provider content.InfoReaderProvider
	// Release ends the image, which is kept only until then. It is called once.
	Release func()

	leaseID string
}

// Leased returns a context in which content, such as layers that are fetched when they are read, is
// kept as long as the image.
func (i *Image) Leased(ctx context.Context) context.Context { return leases.WithLease(ctx, i.leaseID) }

// Response returns what the client is to know of an image with the names.
func (i *Image) Response(names []string) (map[string]string, error) {
	desc, err := json.Marshal(i.Descriptor)
	if err != nil {
		return nil, err
	}
	resp := map[string]string{
		exporter.KeyDigest:     i.Descriptor.Digest.String(),
		exporter.KeyDescriptor: base64.StdEncoding.EncodeToString(desc),
	}
	if i.Config != nil {
		resp[exporter.KeyConfigDigest] = i.Config.Digest.String()
	}
	if len(names) > 0 {
		resp[exporter.KeyImageName] = strings.Join(names, ",")
	}
	return resp, nil
}

// Commit makes the image of a result. The caller releases it; layers that need not be here are left
// where they are.
func (s *Store) Commit(ctx context.Context, res *exporter.Result, opt *Options, env exporter.Env) (*Image, error) {
	id, release, err := s.lease(ctx)
	if err != nil {
		return nil, err
	}
	c := &commit{store: s, res: withMetadata(res, opt.Metadata), opt: opt, env: env}
	img, err := c.run(leases.WithLease(ctx, id))
	if err != nil {
		release()
		return nil, err
	}
	img.Release, img.leaseID = release, id
	if env.Made != nil {
		env.Made(ctx, img.Provider, img.Descriptor)
	}
	return img, nil
}

// withMetadata adds the metadata of attributes to a result.
func withMetadata(res *exporter.Result, meta map[string][]byte) *exporter.Result {
	if len(meta) == 0 {
		return res
	}
	c := *res
	c.Metadata = maps.Clone(res.Metadata)
	if c.Metadata == nil {
		c.Metadata = map[string][]byte{}
	}
	maps.Copy(c.Metadata, meta)
	return &c
}

// commit is the making of one image.
type commit struct {
	store *Store
	res   *exporter.Result
	opt   *Options
	env   exporter.Env

	oci         bool
	types       mediaTypes
	annotations Annotations
}

// part is the image of one platform as it is made.
type part struct {
	exporter.Part
	layers           []cache.Layer
	epoch            *time.Time
	config, manifest ocispec.Descriptor
}

func (c *commit) run(ctx context.Context) (*Image, error) {
	c.oci = c.opt.ociTypes(hasAttestations(c.res))
	c.types = typesOf(c.oci)
	parts, err := c.parts()
	if err != nil {
		return nil, err
	}
	if c.annotations, err = c.opt.Annotations.merged(c.res); err != nil {
		return nil, err
	}
	rewrite, plain := c.rewritten(parts)
	done := c.env.Scope.Step("exporting layers")
	if err := done(eachPart(ctx, plain, c.layers)); err != nil {
		return nil, err
	}
	all := make([]exporter.Part, len(parts))
	for i, p := range parts {
		all[i] = p.Part
	}
	indexed := c.indexed(parts)
	if err := c.annotations.check(all, indexed, c.oci); err != nil {
		return nil, err
	}
	if err := c.rewrite(ctx, rewrite); err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := c.manifest(ctx, p); err != nil {
			return nil, err
		}
	}
	img := &Image{Epoch: parts[0].epoch, Provider: c.provider()}
	if indexed {
		img.Descriptor, err = c.index(ctx, parts)
		return img, err
	}
	img.Descriptor, img.Config = parts[0].manifest, &parts[0].config
	return img, nil
}

func (c *commit) parts() ([]*part, error) {
	all, err := c.res.Parts(c.env.Platform)
	if err != nil {
		return nil, err
	}
	parts := make([]*part, len(all))
	for i, p := range all {
		parts[i] = &part{Part: p}
		if parts[i].epoch, err = c.opt.Epoch.Time(c.res, p.ID); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// eachPart calls fn for the platforms that have layers, all at once.
func eachPart(ctx context.Context, parts []*part, fn func(context.Context, *part) error) error {
	eg, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		if p.Ref != nil {
			eg.Go(func() error { return fn(ctx, p) })
		}
	}
	return eg.Wait()
}

// layers has the layers of a platform made.
func (c *commit) layers(ctx context.Context, p *part) error {
	layers, err := p.Ref.Layers(ctx, c.compression(), c.env.Access)
	p.layers = c.clean(layers)
	return err
}

func (c *commit) compression() blob.CompressionOpt {
	opt := c.opt.Compression
	opt.DockerTypes = !c.oci
	return opt
}

// clean brings descriptors of layers into the form that images have.
func (c *commit) clean(layers []cache.Layer) []cache.Layer {
	for i := range layers {
		d := &layers[i].Descriptor
		*d = cleanLayer(*d, c.oci, c.opt.KeepNonDistributable)
	}
	return layers
}

// manifest writes config and manifest of a platform.
func (c *commit) manifest(ctx context.Context, p *part) error {
	config, err := makeConfig(c.res.Meta(exporter.KeyConfig, p.ID), c.res.Meta(exporter.KeyBaseConfig, p.ID),
		p.Platform.Platform, p.layers, p.epoch)
	if errors.Is(err, errUnaccounted) {
		c.env.Scope.Warn(event.Warning{Short: []byte(err.Error())})
		err = nil
	}
	if err != nil {
		return err
	}
	p.config = describe(c.types.config, config)
	id := formatID(p.Part)
	manifest, err := makeManifest(c.types, p.config, p.layers, c.annotations.on(OnManifest, id))
	if err != nil {
		return err
	}
	p.manifest = describe(c.types.manifest, manifest)
	p.manifest.Platform = platformOf(p.Platform.Platform)
	p.manifest.Annotations = c.annotations.on(OnManifestDescriptor, id)

	children := []ocispec.Descriptor{p.config}
	for _, l := range p.layers {
		children = append(children, l.Descriptor)
	}
	done := c.env.Scope.Step("exporting manifest " + p.manifest.Digest.String())
	if err := done(c.write(ctx, p.manifest, manifest, children)); err != nil {
		return err
	}
	done = c.env.Scope.Step("exporting config " + p.config.Digest.String())
	return done(c.write(ctx, p.config, config, nil))
}

func platformOf(p ocispec.Platform) *ocispec.Platform {
	p = platforms.Normalize(p)
	return &p
}

// index writes the index over the manifests, and before it what attests to them.
func (c *commit) index(ctx context.Context, parts []*part) (ocispec.Descriptor, error) {
	manifests := make([]ocispec.Descriptor, 0, 2*len(parts))
	for _, p := range parts {
		manifests = append(manifests, p.manifest)
	}
	for _, p := range parts {
		desc, err := c.attest(ctx, p)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if desc != nil {
			manifests = append(manifests, *desc)
		}
	}
	data, err := makeIndex(c.types, manifests, c.annotations.on(OnIndex, ""))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := describe(c.types.index, data)
	desc.Annotations = c.annotations.on(OnIndexDescriptor, "")
	done := c.env.Scope.Step("exporting manifest list " + desc.Digest.String())
	return desc, done(c.write(ctx, desc, data, manifests))
}

// write stores a document, with labels that keep what it refers to. It may be here already, without
// them.
func (c *commit) write(ctx context.Context, desc ocispec.Descriptor, data []byte, children []ocispec.Descriptor) error {
	labels := map[string]string{}
	for i, d := range children {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.%d", i)] = d.Digest.String()
	}
	err := content.WriteBlob(ctx, c.store.Content, "export-"+desc.Digest.String(), bytes.NewReader(data), desc,
		content.WithLabels(labels))
	if err != nil {
		return err
	}
	info, err := c.store.Content.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	var fields []string
	for k, v := range labels {
		if info.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	_, err = c.store.Content.Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, fields...)
	return err
}
