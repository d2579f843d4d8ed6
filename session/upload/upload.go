// Package upload lets a daemon read single streams of a client, such as a build context that was
// given as a tarball on standard input. A stream has a URL on the host buildkit-session, which
// the daemon's HTTP source opens through the session.
package upload

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"path"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	uploadpb "github.com/openbuildkit/buildkit/api/session/upload"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// Host is the host of the URLs of streams.
const Host = "buildkit-session"

const (
	keyPath = "urlpath"
	keyHost = "urlhost"
	// chunk is the most data in one message, in bytes.
	chunk = 32 << 10
)

// Provider is the client's service.
type Provider struct {
	uploadpb.UnimplementedUploadServer

	mu      sync.Mutex
	streams map[string]io.ReadCloser
}

// NewProvider returns a service without streams.
func NewProvider() *Provider { return &Provider{streams: map[string]io.ReadCloser{}} }

// Add offers r, once, and returns its URL. The Provider closes r when it was read.
func (p *Provider) Add(r io.ReadCloser) string {
	id := rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams[id] = r
	return "http://" + Host + "/" + id
}

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { uploadpb.RegisterUploadServer(srv, p) }

// Pull sends a stream.
func (p *Provider) Pull(stream grpc.BidiStreamingServer[uploadpb.BytesMessage, uploadpb.BytesMessage]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	v := md.Get(keyPath)
	if len(v) == 0 || len(md.Get(keyHost)) == 0 {
		return status.New(codes.InvalidArgument, "upload: "+keyPath+" and "+keyHost+" are required")
	}
	r := p.take(path.Base(v[0]))
	if r == nil {
		return status.New(codes.NotFound, fmt.Sprintf("no upload %q", v[0]))
	}
	// A read may wait for a user; the end of the stream must not wait for it.
	stop := context.AfterFunc(stream.Context(), func() { r.Close() })
	defer func() {
		if stop() {
			r.Close()
		}
	}()
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := stream.Send(&uploadpb.BytesMessage{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *Provider) take(id string) io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.streams[id]
	delete(p.streams, id)
	return r
}

// Open opens the stream with a URL. The stream ends with ctx, or when it is closed.
func Open(ctx context.Context, c *session.Caller, u *url.URL) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, metadata.Pairs(keyPath, u.Path, keyHost, u.Host)))
	stream, err := uploadpb.NewUploadClient(c.Conn()).Pull(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	return &reader{stream: stream, cancel: cancel}, nil
}

type reader struct {
	stream grpc.BidiStreamingClient[uploadpb.BytesMessage, uploadpb.BytesMessage]
	cancel func()
	rest   []byte
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.cancel()
	return nil
}
