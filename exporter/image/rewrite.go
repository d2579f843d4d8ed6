package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
)

// annotationRewritten on a layer gives the epoch that its times were changed to.
const annotationRewritten = "buildkit/rewritten-timestamp"

// maxRewrites is how many layers of a platform are rewritten at once.
const maxRewrites = 4

// rewrite changes the times in the layers that are not those of the base image. A layer that
// cannot be rewritten stays as it is, with a warning.
func (c *commit) rewrite(ctx context.Context, parts []*part) error {
	for _, p := range parts {
		if p.epoch == nil {
			c.env.Scope.Warn(event.Warning{Short: []byte("rewrite-timestamp is specified, but no source-date-epoch was found")})
			continue
		}
		base, err := baseLayers(c.res.Meta(exporter.KeyBaseConfig, p.ID))
		if err != nil {
			return err
		}
		kept := 0
		for kept < len(base) && kept < len(p.layers) && p.layers[kept].DiffID == base[kept] {
			kept++
		}
		done := c.env.Scope.Step(fmt.Sprintf("rewriting layers with source-date-epoch %d (%s)", p.epoch.Unix(), p.epoch))
		if err := done(c.rewriteLayers(ctx, p.layers[kept:], *p.epoch)); err != nil {
			return err
		}
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

func (c *commit) rewriteLayers(ctx context.Context, layers []cache.Layer, epoch time.Time) error {
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxRewrites)
	for i := range layers {
		eg.Go(func() error {
			l, err := c.rewriteLayer(egctx, layers[i], epoch)
			switch {
			case err == nil:
				layers[i] = l
			case egctx.Err() != nil, errors.Is(err, cache.ErrLost):
				return err
			default:
				c.env.Scope.Warn(event.Warning{Short: fmt.Appendf(nil, "failed to rewrite layer %s: %v", layers[i].Descriptor.Digest, err)})
			}
			return nil
		})
	}
	return eg.Wait()
}

// rewriteLayer stores a layer with its times changed and returns it.
func (c *commit) rewriteLayer(ctx context.Context, l cache.Layer, epoch time.Time) (cache.Layer, error) {
	form, known := blob.FromMediaType(l.Descriptor.MediaType)
	if !known {
		return l, fmt.Errorf("unsupported media type %s", l.Descriptor.MediaType)
	}
	ra, err := c.provider().ReaderAt(ctx, l.Descriptor)
	if err != nil {
		return l, err
	}
	defer ra.Close()
	// Two exports of one layer write the same bytes: the later one waits for the former.
	ref := fmt.Sprintf("rewrite-%s-%d-%s", l.Descriptor.Digest, epoch.Unix(), levelName(c.opt.Compression.Level))
	w, err := content.OpenWriter(ctx, c.store.Content, content.WithRef(ref))
	if err != nil {
		return l, err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil {
		return l, err
	}
	size := &counter{w: w}
	diffID := digest.SHA256.Digester()
	if err := recompress(size, diffID.Hash(), content.NewReader(ra), form, c.opt.Compression.Level, epoch); err != nil {
		return l, errors.Join(err, w.Close(), c.store.Content.Abort(context.WithoutCancel(ctx), ref))
	}
	dgst := w.Digest()
	if err := w.Commit(ctx, size.n, dgst); err != nil && !errdefs.IsAlreadyExists(err) {
		return l, err
	}
	l.Descriptor.Digest, l.Descriptor.Size, l.DiffID = dgst, size.n, diffID.Digest()
	if l.Descriptor.Annotations = maps.Clone(l.Descriptor.Annotations); l.Descriptor.Annotations == nil {
		l.Descriptor.Annotations = map[string]string{}
	}
	if c.oci {
		l.Descriptor.Annotations[annotationRewritten] = strconv.FormatInt(epoch.Unix(), 10)
	}
	return l, nil
}

func levelName(level *int) string {
	if level == nil {
		return "default"
	}
	return strconv.Itoa(*level)
}

// recompress writes a layer with its times changed, in the same form.
func recompress(w, hash io.Writer, r io.Reader, form blob.Compression, level *int, epoch time.Time) error {
	plain, err := blob.NewDecompressor(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	packed, err := blob.NewCompressor(w, form, level)
	if err != nil {
		return err
	}
	if err := retime(io.MultiWriter(packed, hash), plain, epoch); err != nil {
		return errors.Join(err, packed.Close())
	}
	return packed.Close()
}

// retime copies an archive. No time in it is later than the epoch.
func retime(w io.Writer, r io.Reader, epoch time.Time) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	clamp := func(t *time.Time) {
		if t.After(epoch) {
			*t = epoch
		}
	}
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		clamp(&hdr.ModTime)
		clamp(&hdr.AccessTime)
		clamp(&hdr.ChangeTime)
		if hdr.Format == tar.FormatUnknown {
			hdr.Format = tar.FormatPAX
		}
		if err := out.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
