package wire_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/wire"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// daemon is one that runs in this process.
type daemon struct {
	cc    *grpc.ClientConn
	debug string
	hurry chan struct{}
	stop  context.CancelFunc
	ended chan error
}

// start runs a daemon on root and waits until it serves. It is stopped at the end of the test.
func start(t *testing.T, root string, timeout time.Duration) *daemon {
	t.Helper()
	// The path of a socket may have 107 bytes only.
	dir, err := os.MkdirTemp("", "buildkitd-") //nolint:usetesting // as said
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	cfg := &config.Config{Root: root}
	addr := "unix://" + filepath.Join(dir, "d.sock")
	debug := filepath.Join(dir, "debug.sock")
	cfg.GRPC.Addresses = []string{addr}
	cfg.GRPC.DebugAddress = "unix://" + debug
	cfg.SetDefaults(config.Host{Getenv: func(string) string { return "" }})

	d := &daemon{debug: debug, hurry: make(chan struct{}), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	d.stop = cancel
	go func() {
		d.ended <- wire.Run(ctx, cfg, wire.Options{ShutdownTimeout: timeout, Hurry: d.hurry})
		close(d.ended)
	}()
	t.Cleanup(func() {
		cancel()
		for err := range d.ended {
			require.NoError(t, err)
		}
	})
	d.cc, err = grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(status.UnaryClient), grpc.WithStreamInterceptor(status.StreamClient))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.cc.Close()) })
	resp, err := healthpb.NewHealthClient(d.cc).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, resp.GetStatus())
	return d
}

func (d *daemon) control() controlpb.ControlClient { return controlpb.NewControlClient(d.cc) }

// drive starts a build that its client drives and waits until it runs.
func (d *daemon) drive(t *testing.T, ref string) (ended <-chan error, bridge gatewaypb.LLBBridgeClient, ctx context.Context) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := d.control().Solve(context.WithoutCancel(t.Context()), &controlpb.SolveRequest{Ref: ref})
		result <- err
	}()
	ctx = metadata.AppendToOutgoingContext(t.Context(), gateway.BuildIDKey, ref)
	bridge = gatewaypb.NewLLBBridgeClient(d.cc)
	_, err := bridge.Ping(ctx, &gatewaypb.PingRequest{})
	require.NoError(t, err)
	return result, bridge, ctx
}

// get returns what the debug server says at a path.
func (d *daemon) get(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.debug)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://daemon"+path, nil)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, path)
	return string(body)
}

func TestADaemonServesAndStops(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	d := start(t, root, time.Minute)
	workers, err := d.control().ListWorkers(t.Context(), &controlpb.ListWorkersRequest{})
	require.NoError(t, err)
	require.Len(t, workers.GetRecord(), 1)
	w := workers.GetRecord()[0]
	require.Equal(t, "oci", w.GetLabels()["org.mobyproject.buildkit.worker.executor"])
	require.Len(t, w.GetGCPolicy(), 4)
	require.Equal(t, "linux", w.GetPlatforms()[0].GetOS())
	usage, err := d.control().DiskUsage(t.Context(), &controlpb.DiskUsageRequest{})
	require.NoError(t, err)
	require.Empty(t, usage.GetRecord())

	for path, want := range map[string]string{
		"/metrics":                       "buildkit_builds_running 0",
		"/debug/pprof/goroutine?debug=1": "goroutine profile: total",
		"/debug/vars":                    "memstats",
		"/debug/gc":                      "",
	} {
		require.Contains(t, d.get(t, path), want)
	}

	d.stop()
	require.NoError(t, <-d.ended)
	again := start(t, root, time.Minute)
	workers, err = again.control().ListWorkers(t.Context(), &controlpb.ListWorkersRequest{})
	require.NoError(t, err)
	require.Equal(t, w.GetID(), workers.GetRecord()[0].GetID())
}

// collector is where traces end.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	got chan *coltracepb.ExportTraceServiceRequest
}

func (c *collector) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.got <- req
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func TestTracesOfClientsReachTheCollector(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	up := &collector{got: make(chan *coltracepb.ExportTraceServiceRequest, 1)}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, up)
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+lis.Addr().String())
	d := start(t, t.TempDir(), time.Minute)
	_, err = coltracepb.NewTraceServiceClient(d.cc).Export(t.Context(), &coltracepb.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{SchemaUrl: "mark"}},
	})
	require.NoError(t, err)
	require.Equal(t, "mark", (<-up.got).GetResourceSpans()[0].GetSchemaUrl())
}

func TestBuildsAreMeasured(t *testing.T) {
	d := start(t, t.TempDir(), time.Minute)
	for ref, ret := range map[string]*gatewaypb.ReturnRequest{
		"good": {Result: &gatewaypb.Result{}},
		"bad":  {Error: grpcstatus.New(codes.Internal, "no").Proto()},
	} {
		ended, bridge, ctx := d.drive(t, ref)
		_, err := bridge.Return(ctx, ret)
		require.NoError(t, err)
		<-ended
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := d.control().Solve(ctx, &controlpb.SolveRequest{Ref: "probe", Internal: true})
	require.Error(t, err, "nobody drives it")
	metrics := d.get(t, "/metrics")
	require.Contains(t, metrics, `buildkit_build_duration_seconds_count{status="completed"} 1`)
	require.Contains(t, metrics, `buildkit_build_duration_seconds_count{status="error"} 1`)
}

func TestTheServiceManagerIsToldOfStartAndStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	message := func() string {
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	d := start(t, t.TempDir(), time.Minute)
	require.Equal(t, "READY=1", message())
	d.stop()
	require.Equal(t, "STOPPING=1", message())
	require.NoError(t, <-d.ended)
}

func TestADaemonThatStopsLeavesNoConnectionToARegistry(t *testing.T) {
	registry := httptest.NewUnstartedServer(http.NotFoundHandler())
	closed := make(chan struct{}, 16)
	var opened atomic.Int32
	registry.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed <- struct{}{}
		}
	}
	registry.Start()
	t.Cleanup(registry.Close)

	d := start(t, t.TempDir(), time.Minute)
	ended, bridge, ctx := d.drive(t, "resolve")
	_, err := bridge.ResolveImageConfig(ctx, &gatewaypb.ResolveImageConfigRequest{Ref: registry.Listener.Addr().String() + "/x/y:1"})
	require.ErrorContains(t, err, "not found")
	_, err = bridge.Return(ctx, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
	require.NoError(t, err)
	require.NoError(t, <-ended)
	require.NotZero(t, opened.Load())
	require.Empty(t, closed, "connections are kept for the next build")
	d.stop()
	require.NoError(t, <-d.ended)
	for range opened.Load() {
		<-closed
	}
}

func TestAnInternalBuildProbesTheDaemon(t *testing.T) {
	d := start(t, t.TempDir(), time.Minute)
	ended, bridge, ctx := d.drive(t, "probe")
	_, err := bridge.Return(ctx, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
	require.NoError(t, err)
	require.NoError(t, <-ended)
}

func TestStoppingWaitsForBuildsAndRefusesNewOnes(t *testing.T) {
	d := start(t, t.TempDir(), time.Hour)
	ended, bridge, ctx := d.drive(t, "running")
	d.stop()
	require.Eventually(t, func() bool {
		resp, err := healthpb.NewHealthClient(d.cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		return resp.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
	}, 10*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := d.control().Solve(t.Context(), &controlpb.SolveRequest{Ref: "late", Frontend: "nosuch"})
		return status.Code(err) == codes.Unavailable
	}, 10*time.Second, 10*time.Millisecond)

	_, err := net.Dial("unix", d.cc.Target()[len("unix://"):])
	require.ErrorIs(t, err, os.ErrNotExist, "new clients are for the next daemon")
	_, err = bridge.Return(ctx, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
	require.NoError(t, err, "a running build is still served")
	require.NoError(t, <-ended)
	require.NoError(t, <-d.ended)
}

func TestStoppingEndsBuildsThatTakeTooLong(t *testing.T) {
	d := start(t, t.TempDir(), 50*time.Millisecond)
	ended, _, _ := d.drive(t, "running")
	d.stop()
	require.Equal(t, codes.Unavailable, status.Code(<-ended))
	require.NoError(t, <-d.ended)
}

func TestASecondSignalEndsBuildsAtOnce(t *testing.T) {
	d := start(t, t.TempDir(), time.Hour)
	ended, _, _ := d.drive(t, "running")
	d.stop()
	close(d.hurry)
	require.Equal(t, codes.Unavailable, status.Code(<-ended))
	require.NoError(t, <-d.ended)
}
