package wire

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/log"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/internal/otlp"
)

// traceFlush is how long the last traces may take on their way out.
const traceFlush = 5 * time.Second

// maxUploads is how many builds and clients may have spans on their way to the collector at once; those of more are lost.
const maxUploads = 16

// traces receives the spans of programs in build steps and of clients, over OTLP, has those that belong to
// builds recorded, and passes all on to the collector that the environment of the daemon names, if it
// does. The spans of builds themselves go there too.
type traces struct {
	coltracepb.UnimplementedTraceServiceServer
	lis net.Listener // nil if the socket cannot be had
	// up and collector are nil without a collector. Uploads counts the spans of builds on their way.
	up        otlptrace.Client
	collector *otlptrace.Exporter
	uploads   sync.WaitGroup
	slots     chan struct{}
	// builds keeps the spans that belong to builds.
	builds interface {
		AddSpans(all []*tracepb.ResourceSpans)
	}
}

// newTraces opens the socket. A daemon whose socket is taken builds without it.
func newTraces(ctx context.Context, cfg config.OTEL) *traces {
	t := &traces{slots: make(chan struct{}, maxUploads)}
	up, err := otlp.Client(os.Getenv, true)
	if up != nil {
		t.up, t.collector = up, otlptrace.NewUnstarted(up)
		err = t.collector.Start(ctx)
	}
	if err != nil {
		log.G(ctx).WithError(err).Warn("traces are not sent to the collector")
		t.up, t.collector = nil, nil
	}
	if t.lis, err = listenTraces(cfg.SocketPath); err != nil {
		log.G(ctx).WithError(err).Warn("build steps can't send traces")
	}
	return t
}

// spans passes the spans of a build on. It does not wait.
func (t *traces) spans(all tracetest.SpanStubs) {
	if t.collector != nil {
		t.upload(func(ctx context.Context) error { return t.collector.ExportSpans(ctx, all.Snapshots()) })
	}
}

// upload has spans sent to the collector. It does not wait.
func (t *traces) upload(send func(context.Context) error) {
	select {
	case t.slots <- struct{}{}:
	default:
		log.L.Warn("spans are lost: the collector is slow")
		return
	}
	t.uploads.Go(func() {
		defer func() { <-t.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := send(ctx); err != nil {
			log.L.WithError(err).Warn("spans are lost")
		}
	})
}

func listenTraces(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lis, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Steps run as users of their own.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return lis, nil
}

// path returns the socket, empty if there is none.
func (t *traces) path() string {
	if t.lis == nil {
		return ""
	}
	return t.lis.Addr().String()
}

// Export passes spans on, and keeps those of builds. Who sends them does not wait for the collector.
func (t *traces) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	if t.builds != nil {
		t.builds.AddSpans(req.GetResourceSpans())
	}
	if t.up != nil {
		t.upload(func(ctx context.Context) error { return t.up.UploadTraces(ctx, req.GetResourceSpans()) })
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// run serves until ctx ends.
func (t *traces) run(ctx context.Context) error {
	if t.lis == nil {
		return nil
	}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, t)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(t.lis); ctx.Err() == nil {
		return err
	}
	return nil
}

// close removes the socket and sends what is left; closing twice does nothing.
func (t *traces) close() error {
	var err error
	if t.lis != nil {
		if err = t.lis.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	t.uploads.Wait()
	if t.collector == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
	defer cancel()
	return errors.Join(err, t.collector.Shutdown(ctx))
}
