// Package content gives a daemon access to content stores of the client, such as the folders of
// local caches and of OCI layouts. A store is named by an id in the metadata of every call. The
// service and its messages are those of containerd.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

const keyStoreID = "buildkit-attachable-store-id"

// Provider is the client's service.
type Provider struct {
	contentapi.UnimplementedContentServer

	mu     sync.Mutex
	stores map[string]contentapi.ContentServer
}

// NewProvider returns a service that offers stores by id.
func NewProvider(stores map[string]content.Store) *Provider {
	p := &Provider{stores: map[string]contentapi.ContentServer{}}
	for id, store := range stores {
		p.Add(id, store)
	}
	return p
}

// Add offers one more store, or another one under an id that is in use.
func (p *Provider) Add(id string, store content.Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stores[id] = contentserver.New(store)
}

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { contentapi.RegisterContentServer(srv, p) }

// store returns the store that a call names; the first id counts.
func (p *Provider) store(ctx context.Context) (contentapi.ContentServer, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	id := md.Get(keyStoreID)
	if len(id) == 0 {
		return nil, status.New(codes.InvalidArgument, "request has no "+keyStoreID)
	}
	p.mu.Lock()
	s, ok := p.stores[id[0]]
	p.mu.Unlock()
	if !ok {
		return nil, status.New(codes.NotFound, fmt.Sprintf("unknown content store %q", id[0]))
	}
	return s, nil
}

// call makes a call to the store that it names.
func call[Req, Resp any](ctx context.Context, p *Provider, req Req, method func(contentapi.ContentServer, context.Context, Req) (Resp, error)) (resp Resp, err error) {
	s, err := p.store(ctx)
	if err != nil {
		return resp, err
	}
	return method(s, ctx, req)
}

// Info describes a blob.
func (p *Provider) Info(ctx context.Context, req *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	return call(ctx, p, req, contentapi.ContentServer.Info)
}

// Update changes the labels of a blob.
func (p *Provider) Update(ctx context.Context, req *contentapi.UpdateRequest) (*contentapi.UpdateResponse, error) {
	return call(ctx, p, req, contentapi.ContentServer.Update)
}

// Delete removes a blob.
func (p *Provider) Delete(ctx context.Context, req *contentapi.DeleteContentRequest) (*emptypb.Empty, error) {
	return call(ctx, p, req, contentapi.ContentServer.Delete)
}

// Status describes a write in progress.
func (p *Provider) Status(ctx context.Context, req *contentapi.StatusRequest) (*contentapi.StatusResponse, error) {
	return call(ctx, p, req, contentapi.ContentServer.Status)
}

// ListStatuses describes the writes in progress.
func (p *Provider) ListStatuses(ctx context.Context, req *contentapi.ListStatusesRequest) (*contentapi.ListStatusesResponse, error) {
	return call(ctx, p, req, contentapi.ContentServer.ListStatuses)
}

// Abort ends a write in progress.
func (p *Provider) Abort(ctx context.Context, req *contentapi.AbortRequest) (*emptypb.Empty, error) {
	return call(ctx, p, req, contentapi.ContentServer.Abort)
}

// List lists blobs.
func (p *Provider) List(req *contentapi.ListContentRequest, stream contentapi.Content_ListServer) error {
	s, err := p.store(stream.Context())
	if err != nil {
		return err
	}
	return s.List(req, stream)
}

// Read sends a blob.
func (p *Provider) Read(req *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	s, err := p.store(stream.Context())
	if err != nil {
		return err
	}
	return s.Read(req, stream)
}

// Write receives a blob.
func (p *Provider) Write(stream contentapi.Content_WriteServer) error {
	s, err := p.store(stream.Context())
	if err != nil {
		return err
	}
	return s.Write(stream)
}

// NewStore returns a store of a client. It may be used as long as the session lives; errors have
// the kinds of containerd's errdefs.
func NewStore(c *session.Caller, id string) content.Store {
	return proxy.NewContentStore(contentapi.NewContentClient(namedConn{c.Conn(), id}))
}

// namedConn adds the id of a store to calls.
type namedConn struct {
	grpc.ClientConnInterface
	id string
}

func (c namedConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, keyStoreID, c.id), method, args, reply, opts...)
}

func (c namedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, keyStoreID, c.id), desc, method, opts...)
}

// Open reads a blob of a client's store from offset to its end. Reads end with an error when ctx or
// the session does. Errors have the kinds of containerd's errdefs.
func Open(ctx context.Context, c *session.Caller, id string, dgst digest.Digest, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := contentapi.NewContentClient(namedConn{c.Conn(), id}).Read(ctx, &contentapi.ReadContentRequest{
		Digest: dgst.String(), Offset: offset,
	})
	if err != nil {
		cancel()
		return nil, native(err)
	}
	r := &reader{stream: stream, cancel: cancel}
	// The first message says whether the blob is there.
	if err := r.next(); err != nil && !errors.Is(err, io.EOF) {
		cancel()
		return nil, err
	}
	return r, nil
}

// native gives an error of a client the kind that it had there. It remains a fault of the session.
func native(err error) error {
	faults := session.Faults(err)
	if len(faults) == 0 {
		return errgrpc.ToNative(err)
	}
	if errors.Is(err, session.ErrLost) {
		return err
	}
	return &session.Fault{ID: faults[0].ID, Err: errgrpc.ToNative(faults[0].Err)}
}

// reader is a blob as it comes.
type reader struct {
	stream contentapi.Content_ReadClient
	cancel context.CancelFunc
	buf    []byte
	err    error
}

func (r *reader) next() error {
	msg, err := r.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		r.err = io.EOF
	case err != nil:
		r.err = native(err)
	default:
		// The offset that comes with it is not the same with all clients, and what comes is
		// digested anyway.
		r.buf = msg.Data
	}
	return r.err
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.buf) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

// Close ends the transfer.
func (r *reader) Close() error {
	r.cancel()
	return nil
}
