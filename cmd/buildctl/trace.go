package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/redact"
	"github.com/openbuildkit/buildkit/cmd/internal/otlp"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
)

const (
	// flushTime is how long the last spans may take on their way out, after the command has ended.
	flushTime = time.Second

	tracerName     = "github.com/openbuildkit/buildkit/cmd/buildctl"
	envParent      = "TRACEPARENT"
	envIgnoreError = "OTEL_IGNORE_ERROR"
)

// tracing is the span of a command and where spans go: to the collector that the environment names, and
// to the daemon, which has them recorded with the builds they belong to. What goes wrong with spans is
// nobody's business: a command neither fails because of it nor says so.
type tracing struct {
	provider *sdktrace.TracerProvider // nil if there are no traces
	span     trace.Span
	// processors send spans, each to one place.
	processors []sdktrace.SpanProcessor
}

// startTracing begins the span of a command with its arguments, if it is one that builds, so that there is a
// record that it belongs to, or the environment asks for traces: nobody would look at those of most
// commands otherwise, and they cost a tenth of the time of a short one. The returned context is that of the
// span, which is part of the trace that the environment names, if it does.
func startTracing(ctx context.Context, name string, builds bool, args []string, getenv func(string) string) (context.Context, *tracing, error) {
	silence()
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": getenv(envParent), "tracestate": getenv("TRACESTATE"),
	})
	t := &tracing{}
	if otlp.Off(getenv) {
		return ctx, t, nil
	}
	collector, err := collectorOf(ctx, getenv)
	if ignore, _ := strconv.ParseBool(getenv(envIgnoreError)); err != nil && !ignore {
		return nil, nil, err
	}
	if !builds && collector == nil && getenv(envParent) == "" {
		return ctx, t, nil
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(selfResource(ctx)))
	if collector != nil {
		t.sendTo(collector)
	}
	otel.SetTracerProvider(t.provider)
	ctx, t.span = t.provider.Tracer(tracerName).Start(ctx, name, trace.WithAttributes(
		attribute.StringSlice("command", redact.Args(args))))
	return ctx, t, nil
}

// silence keeps the libraries from writing on the terminal.
func silence() {
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
}

// selfResource says who sends spans.
func selfResource(ctx context.Context) *resource.Resource {
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "buildctl"), attribute.String("service.version", version.Version)),
		resource.WithFromEnv(),
	)
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return resource.Empty()
	}
	return res
}

// collectorOf returns the exporter to the collector that the environment names, nil for none.
func collectorOf(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	// Whoever waits for a command does not wait for a collector that comes later.
	client, err := otlp.Client(getenv, false)
	if client == nil || err != nil {
		return nil, err
	}
	return otlptrace.New(ctx, client)
}

// sendTo has spans that end from now on sent somewhere.
func (t *tracing) sendTo(e sdktrace.SpanExporter) {
	p := sdktrace.NewBatchSpanProcessor(e)
	t.processors = append(t.processors, p)
	t.provider.RegisterSpanProcessor(p)
}

// sendToDaemon has spans that end from now on sent to a daemon.
func (t *tracing) sendToDaemon(conn grpc.ClientConnInterface) {
	if t == nil || t.provider == nil {
		return
	}
	t.sendTo(otlptrace.NewUnstarted(daemonTraces{conn}))
}

// end ends the span of a command and sends what is left, within flushTime. It has to be called while the
// connection to the daemon is open.
func (t *tracing) end(err error) {
	if t == nil || t.provider == nil {
		return
	}
	if err != nil {
		t.span.SetStatus(otelcodes.Error, giturl.Redact(err.Error()))
	}
	t.span.End()
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	var sent sync.WaitGroup
	for _, p := range t.processors {
		sent.Go(func() { _ = p.Shutdown(ctx) })
	}
	sent.Wait()
}

// daemonTraces sends spans over the connection to a daemon.
type daemonTraces struct {
	conn grpc.ClientConnInterface
}

func (daemonTraces) Start(context.Context) error { return nil }
func (daemonTraces) Stop(context.Context) error  { return nil }

// UploadTraces sends spans. A daemon that has not been reached is not waited for.
func (d daemonTraces) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	c, ok := d.conn.(interface{ GetState() connectivity.State })
	if ok && c.GetState() != connectivity.Ready {
		return errors.New("not connected to the daemon")
	}
	_, err := coltracepb.NewTraceServiceClient(d.conn).Export(ctx, &coltracepb.ExportTraceServiceRequest{ResourceSpans: spans})
	return err
}
