package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/rogpeppe/go-internal/testscript"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/session"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"buildctl": main})
}

// TestScripts runs the stories in testdata/script. BUILDKIT_HOST names a fake daemon.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			sock := filepath.Join(env.WorkDir, "d.sock")
			l, err := net.Listen("unix", sock)
			if err != nil {
				return err
			}
			d := &fakeDaemon{sessions: session.NewManager(), returned: make(chan *gatewaypb.ReturnRequest, 1)}
			srv := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer), grpc.StreamInterceptor(status.StreamServer))
			controlpb.RegisterControlServer(srv, d)
			gatewaypb.RegisterLLBBridgeServer(srv, fakeBridge{d: d})
			contentapi.RegisterContentServer(srv, fakeContent{})
			coltracepb.RegisterTraceServiceServer(srv, &spanFile{path: filepath.Join(env.WorkDir, "daemon.spans")})
			go func() { _ = srv.Serve(l) }()
			env.Defer(srv.Stop)
			env.Setenv("BUILDKIT_HOST", "unix://"+sock)
			env.Setenv("SOCK", sock)
			collector, err := serveCollector(env)
			if err != nil {
				return err
			}
			env.Setenv("COLLECTOR", collector)
			env.Setenv("HOME", env.WorkDir)
			def, err := llb.Image("a").Run(llb.Args("x")).Root().Marshal(context.Background())
			if err != nil {
				return err
			}
			dt, err := proto.Marshal(def)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "def.pb"), dt, 0o644)
		},
	})
}
