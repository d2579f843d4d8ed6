package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/log"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// traceFlush is how long the last traces may take on their way out.
const traceFlush = 5 * time.Second

// maxUploads is how many builds may have spans on their way to the collector; those of more are lost.
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
	t := &traces{up: collectorClient(os.Getenv), slots: make(chan struct{}, maxUploads)}
	if t.up != nil {
		t.collector = otlptrace.NewUnstarted(t.up)
		if err := t.collector.Start(ctx); err != nil {
			log.G(ctx).WithError(err).Warn("traces are not sent to the collector")
			t.up, t.collector = nil, nil
		}
	}
	var err error
	if t.lis, err = listenTraces(cfg.SocketPath); err != nil {
		log.G(ctx).WithError(err).Warn("build steps can't send traces")
	}
	return t
}

// spans passes the spans of a build on. It does not wait.
func (t *traces) spans(all tracetest.SpanStubs) {
	if t.collector == nil {
		return
	}
	select {
	case t.slots <- struct{}{}:
	default:
		log.L.Warn("the spans of a build are lost: the collector is slow")
		return
	}
	t.uploads.Go(func() {
		defer func() { <-t.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := t.collector.ExportSpans(ctx, all.Snapshots()); err != nil {
			log.L.WithError(err).Warn("the spans of a build are lost")
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

// collectorClient returns the client that the variables of OpenTelemetry ask for, nil for none.
func collectorClient(getenv func(string) string) otlptrace.Client {
	exporter := getenv("OTEL_TRACES_EXPORTER")
	named := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") + getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if exporter != "otlp" && (exporter != "" || named == "") {
		return nil
	}
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if protocol == "http/protobuf" {
		return otlptracehttp.NewClient()
	}
	return otlptracegrpc.NewClient()
}

// path returns the socket, empty if there is none.
func (t *traces) path() string {
	if t.lis == nil {
		return ""
	}
	return t.lis.Addr().String()
}

// Export passes spans on, and keeps those of builds.
func (t *traces) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	if t.builds != nil {
		t.builds.AddSpans(req.GetResourceSpans())
	}
	if t.up != nil {
		if err := t.up.UploadTraces(ctx, req.ResourceSpans); err != nil {
			return nil, fmt.Errorf("pass traces on: %w", err)
		}
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
