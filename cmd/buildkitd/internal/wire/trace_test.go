package wire

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// sink is a TraceService that hands on what it gets.
type sink struct {
	coltracepb.UnimplementedTraceServiceServer
	got chan *coltracepb.ExportTraceServiceRequest
}

func (c *sink) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.got <- req
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func export(t *testing.T, socket string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = coltracepb.NewTraceServiceClient(conn).Export(ctx, &coltracepb.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{SchemaUrl: "mark"}},
	})
	return err
}

func serveTraces(t *testing.T) *traces {
	t.Helper()
	tr := newTraces(t.Context(), config.OTEL{SocketPath: filepath.Join(t.TempDir(), "sub", "otel.sock")})
	require.NotEmpty(t, tr.path())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, tr.close())
	})
	return tr
}

func TestTracesOfStepsAreTakenWithoutACollector(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	require.NoError(t, export(t, serveTraces(t).path()))
}

// collect serves a collector, which takes spans one after the other when they are received from it, and
// names it in the environment.
func collect(t *testing.T) <-chan *coltracepb.ExportTraceServiceRequest {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &sink{got: make(chan *coltracepb.ExportTraceServiceRequest)}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+lis.Addr().String())
	return c.got
}

func TestTracesOfStepsReachTheCollector(t *testing.T) {
	got := collect(t)
	tr := serveTraces(t)
	require.NoError(t, export(t, tr.path()))
	require.Equal(t, "mark", (<-got).ResourceSpans[0].SchemaUrl)
	// Those of a build that has ended go there too.
	tr.spans(tracetest.SpanStubs{{Name: "build"}})
	require.Equal(t, "build", (<-got).ResourceSpans[0].ScopeSpans[0].Spans[0].Name)
}

func TestWhoSendsTracesDoesNotWaitForTheCollector(t *testing.T) {
	got := collect(t)
	tr := serveTraces(t)
	for range 3 {
		require.NoError(t, export(t, tr.path()), "nobody has taken anything yet")
	}
	for range 3 {
		<-got
	}
}

func TestDaemonBuildsWithoutItsTraceSocket(t *testing.T) {
	tr := newTraces(t.Context(), config.OTEL{SocketPath: "/dev/null/otel.sock"})
	require.Empty(t, tr.path())
	require.NoError(t, tr.run(t.Context()))
	require.NoError(t, tr.close())
}
