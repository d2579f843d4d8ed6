package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
)

// annotationRewritten on a layer gives the epoch that its times were changed to.
const annotationRewritten = "buildkit/rewritten-timestamp"

// rewritten returns the platforms whose layers get other times, by the time that they get; and
// those that stay as they are.
func (c *commit) rewritten(parts []*part) (rewrite map[int64][]*part, plain []*part) {
	if !c.opt.RewriteTimestamp {
		return nil, parts
	}
	rewrite = map[int64][]*part{}
	for _, p := range parts {
		if p.epoch == nil {
			c.env.Scope.Warn(event.Warning{Short: []byte("rewrite-timestamp is specified, but no source-date-epoch was found")})
			plain = append(plain, p)
			continue
		}
		rewrite[p.epoch.Unix()] = append(rewrite[p.epoch.Unix()], p)
	}
	return rewrite, plain
}

// rewrite has the layers of platforms made with times that are not later than the epoch.
func (c *commit) rewrite(ctx context.Context, all map[int64][]*part) error {
	eg, ctx := errgroup.WithContext(ctx)
	for epoch, parts := range all {
		at := time.Unix(epoch, 0).UTC()
		eg.Go(func() error {
			done := c.env.Scope.Step(fmt.Sprintf("rewriting layers with source-date-epoch %d (%s)", epoch, at))
			return done(eachPart(ctx, parts, func(ctx context.Context, p *part) error { return c.rewritePart(ctx, p, at) }))
		})
	}
	return eg.Wait()
}

func (c *commit) rewritePart(ctx context.Context, p *part, epoch time.Time) error {
	base, err := baseLayers(c.res.Meta(exporter.KeyBaseConfig, p.ID))
	if err != nil {
		return err
	}
	layers, err := p.Ref.LayersAt(ctx, c.compression(), cache.Retime{Epoch: epoch, Base: base}, c.env.Access)
	if err != nil {
		return err
	}
	p.layers = c.clean(layers)
	for i, l := range p.layers {
		if l.Unchanged != nil {
			c.env.Scope.Warn(event.Warning{Short: fmt.Appendf(nil, "failed to rewrite layer %s: %v", l.Descriptor.Digest, l.Unchanged)})
		}
		if !l.Retimed || !c.oci {
			continue
		}
		annotations := maps.Clone(l.Descriptor.Annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationRewritten] = strconv.FormatInt(epoch.Unix(), 10)
		p.layers[i].Descriptor.Annotations = annotations
	}
	return nil
}

// baseLayers returns the diff ids of the base image.
func baseLayers(config []byte) ([]digest.Digest, error) {
	if len(config) == 0 {
		return nil, nil
	}
	var img ocispec.Image
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fmt.Errorf("failed to parse config of the base image: %w", err)
	}
	return img.RootFS.DiffIDs, nil
}
