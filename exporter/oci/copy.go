package oci

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/session"
)

const (
	// keyStore names, in the metadata of calls, the store of a client; storeExport is the one
	// that takes exported images.
	keyStore    = "buildkit-attachable-store-id"
	storeExport = "export"
	// maxCopies is how many blobs are sent at once.
	maxCopies = 4
)

// copyImage puts everything of an image into the client's store, what is referred to before what
// refers to it.
func copyImage(ctx context.Context, client *session.Caller, img *image.Image) error {
	ctx = metadata.AppendToOutgoingContext(ctx, keyStore, storeExport)
	c := copier{to: proxy.NewContentStore(client.Conn()), img: img}
	return c.tree(ctx, img.Descriptor)
}

// copier puts the blobs of an image into a store.
type copier struct {
	to  content.Ingester
	img *image.Image
	// under has the blobs under way: a layer may be in an image more than once, and a store has one
	// writer for a blob.
	under singleflight.Group
}

func (c *copier) tree(ctx context.Context, desc ocispec.Descriptor) error {
	children, err := images.Children(ctx, c.img.Provider, desc)
	if err != nil {
		return err
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxCopies)
	for _, child := range children {
		eg.Go(func() error { return c.tree(egctx, child) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	_, err, _ = c.under.Do(desc.Digest.String(), func() (any, error) { return nil, c.blob(ctx, desc) })
	return err
}

func (c *copier) blob(ctx context.Context, desc ocispec.Descriptor) error {
	w, err := content.OpenWriter(ctx, c.to, content.WithRef("export-"+desc.Digest.String()), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return exportError(desc, err)
	}
	defer w.Close()
	ra, err := c.img.Provider.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := content.Copy(ctx, w, content.NewReader(ra), desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return exportError(desc, err)
	}
	return nil
}

func exportError(desc ocispec.Descriptor, err error) error {
	if errors.Is(err, io.EOF) {
		// The stream has ended, and that without a reason.
		err = status.New(codes.FailedPrecondition, "the client has left before it had the blob")
	}
	return fmt.Errorf("export %s to the client: %w", desc.Digest, err)
}
