package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// traceFlush is how long the last traces may take on their way out.
const traceFlush = 5 * time.Second

// traces receives the spans of programs in build steps and of clients, over OTLP, and passes them on
// to the collector that the environment of the daemon names; without one they are dropped.
type traces struct {
	coltracepb.UnimplementedTraceServiceServer
	// lis is the socket for steps, nil if it could not be opened.
	lis net.Listener
	up  otlptrace.Client
	// started is true once up takes spans.
	started atomic.Bool
	// builds keeps the spans that belong to builds.
	builds interface {
		AddSpans(all []*tracepb.ResourceSpans)
	}
}

// newTraces opens the socket. A daemon whose socket is taken builds without it.
func newTraces(ctx context.Context, cfg config.OTEL) *traces {
	lis, err := listenTraces(cfg.SocketPath)
	if err != nil {
		log.G(ctx).WithError(err).Warn("build steps can't send traces")
	}
	return &traces{lis: lis, up: collectorClient(os.Getenv)}
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
	if t.started.Load() {
		if err := t.up.UploadTraces(ctx, req.ResourceSpans); err != nil {
			return nil, fmt.Errorf("pass traces on: %w", err)
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// run serves until ctx ends.
func (t *traces) run(ctx context.Context) error {
	if t.up != nil {
		if err := t.up.Start(ctx); err != nil {
			log.G(ctx).WithError(err).Warn("traces are dropped")
		} else {
			t.started.Store(true)
		}
	}
	err := t.serve(ctx)
	if t.started.Load() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		err = errors.Join(err, t.up.Stop(last))
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve serves the socket until ctx ends.
func (t *traces) serve(ctx context.Context) error {
	if t.lis == nil {
		<-ctx.Done()
		return nil
	}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, t)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(t.lis)
}

// close removes the socket; closing twice does nothing.
func (t *traces) close() error {
	if t.lis == nil {
		return nil
	}
	if err := t.lis.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
