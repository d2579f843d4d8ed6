package oci

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"

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
	return copyTree(ctx, proxy.NewContentStore(client.Conn()), img, img.Descriptor)
}

func copyTree(ctx context.Context, to content.Ingester, img *image.Image, desc ocispec.Descriptor) error {
	children, err := images.Children(ctx, img.Provider, desc)
	if err != nil {
		return err
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxCopies)
	for _, child := range children {
		eg.Go(func() error { return copyTree(egctx, to, img, child) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return copyBlob(ctx, to, img, desc)
}

func copyBlob(ctx context.Context, to content.Ingester, img *image.Image, desc ocispec.Descriptor) error {
	w, err := content.OpenWriter(ctx, to, content.WithRef("export-"+desc.Digest.String()), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", desc.Digest, err)
	}
	defer w.Close()
	ra, err := img.Provider.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := content.Copy(ctx, w, content.NewReader(ra), desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("export %s: %w", desc.Digest, err)
	}
	return nil
}
