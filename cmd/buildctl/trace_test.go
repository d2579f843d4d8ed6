package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spanFile receives spans and writes a line for each into a file.
type spanFile struct {
	coltracepb.UnimplementedTraceServiceServer
	mu   sync.Mutex
	path string
}

func (s *spanFile) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	for _, r := range req.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				_, err = fmt.Fprintf(f, "%s: trace=%s parent=%s status=%q %v %v\n", span.GetName(), hex.EncodeToString(span.GetTraceId()),
					hex.EncodeToString(span.GetParentSpanId()), span.GetStatus().GetMessage(), span.GetAttributes(), r.GetResource().GetAttributes())
			}
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, errors.Join(err, f.Close())
}

// serveCollector serves OTLP until a script has ended, and returns its address.
func serveCollector(env *testscript.Env) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(srv, &spanFile{path: filepath.Join(env.WorkDir, "collector.spans")})
	go func() { _ = srv.Serve(l) }()
	env.Defer(srv.Stop)
	return "http://" + l.Addr().String(), nil
}

// A collector that takes connections and says nothing holds a command up for a second at most, one that
// is not there not at all.
func TestADeadCollectorHoldsNobodyUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	absent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, absent.Close())
	for name, tc := range map[string]struct {
		addr string
		most time.Duration
	}{
		"silent": {silent.Addr().String(), 2 * flushTime},
		"absent": {absent.Addr().String(), flushTime / 2},
	} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				// The libraries read the environment themselves.
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+tc.addr)
				t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
				_, trace, err := startTracing(t.Context(), "buildctl du", false, nil, os.Getenv)
				require.NoError(t, err)
				require.Len(t, trace.processors, 1)
				start := time.Now()
				trace.end(nil)
				require.Less(t, time.Since(start), tc.most)
			})
		}
	}
}
