package control

import (
	"context"
	"fmt"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/emptypb"
)

// contentServer serves the blobs of the history to clients, for reading only. The content of the
// cache is not served: clients differ in what they may read, and a digest is no right to content.
type contentServer struct {
	contentapi.UnimplementedContentServer
	store contentapi.ContentServer
}

func newContentServer(blobs content.InfoReaderProvider) contentapi.ContentServer {
	return contentServer{store: contentserver.New(readOnly{InfoReaderProvider: blobs})}
}

// Info describes a blob.
func (s contentServer) Info(ctx context.Context, req *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	return s.store.Info(ctx, req)
}

// Read sends a blob.
func (s contentServer) Read(req *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	return s.store.Read(req, stream)
}

// Delete is refused, as is everything that changes something.
func (contentServer) Delete(context.Context, *contentapi.DeleteContentRequest) (*emptypb.Empty, error) {
	return nil, errReadOnly
}

// Update is refused.
func (contentServer) Update(context.Context, *contentapi.UpdateRequest) (*contentapi.UpdateResponse, error) {
	return nil, errReadOnly
}

// Write is refused.
func (contentServer) Write(contentapi.Content_WriteServer) error { return errReadOnly }

// Abort is refused.
func (contentServer) Abort(context.Context, *contentapi.AbortRequest) (*emptypb.Empty, error) {
	return nil, errReadOnly
}

var errReadOnly = fmt.Errorf("the content of the daemon can only be read: %w", errdefs.ErrNotImplemented)

// readOnly is a store of which only what reads is there.
type readOnly struct {
	content.Manager
	content.IngestManager
	content.Ingester
	content.InfoReaderProvider
}

// Info implements content.InfoProvider.
func (r readOnly) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	return r.InfoReaderProvider.Info(ctx, dgst)
}
