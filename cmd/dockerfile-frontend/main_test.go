package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
)

// daemon is what the program talks to: it has one file and no images.
type daemon struct {
	gatewaypb.UnimplementedLLBBridgeServer
	dockerfile string

	mu       sync.Mutex
	solved   []*pb.Definition
	returned *gatewaypb.ReturnRequest
}

func (d *daemon) Ping(context.Context, *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	return &gatewaypb.PongResponse{FrontendAPICaps: []*capspb.APICap{{ID: "readfile", Enabled: true}}}, nil
}

func (d *daemon) Inputs(context.Context, *gatewaypb.InputsRequest) (*gatewaypb.InputsResponse, error) {
	return &gatewaypb.InputsResponse{}, nil
}

func (d *daemon) Solve(_ context.Context, req *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.solved = append(d.solved, req.Definition)
	return &gatewaypb.SolveResponse{Result: &gatewaypb.Result{
		Result: &gatewaypb.Result_Ref{Ref: &gatewaypb.Ref{Id: "tree", Def: req.Definition}},
	}}, nil
}

func (d *daemon) ReadFile(_ context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	if req.FilePath != "Dockerfile" {
		return nil, status.New(codes.NotFound, "open "+req.FilePath+": no such file or directory")
	}
	return &gatewaypb.ReadFileResponse{Data: []byte(d.dockerfile)}, nil
}

func (d *daemon) Return(_ context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.returned = req
	return &gatewaypb.ReturnResponse{}, nil
}

// serve runs the program as a daemon would and returns its exit error and what it wrote to
// standard error.
func serve(t *testing.T, program string, d *daemon, env ...string) (string, error) {
	t.Helper()
	return serveWith(t, program, nil, d, env...)
}

// serveWith is serve with arguments.
func serveWith(t *testing.T, program string, args []string, d *daemon, env ...string) (string, error) {
	t.Helper()
	in, toProgram, err := os.Pipe()
	require.NoError(t, err)
	fromProgram, out, err := os.Pipe()
	require.NoError(t, err)
	ours, theirs := net.Pipe()
	srv := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer))
	gatewaypb.RegisterLLBBridgeServer(srv, d)
	t.Cleanup(srv.Stop)
	go func() { _ = srv.Serve(&oneConn{conn: ours}) }()
	go copyAll(toProgram, theirs)
	go copyAll(theirs, fromProgram)

	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &stderr
	cmd.Env = env
	require.NoError(t, cmd.Start())
	require.NoError(t, in.Close())
	require.NoError(t, out.Close())
	err = cmd.Wait()
	return stderr.String(), err
}

func TestADockerfileIsLoweredByTheProgram(t *testing.T) {
	d := &daemon{dockerfile: "FROM scratch AS other\nFROM scratch AS app\nARG WHO=world\nCOPY <<EOF /hello\nhello $WHO\nEOF\nENTRYPOINT [\"/hello\"]\n"}
	stderr, err := serve(t, build(t), d,
		"BUILDKIT_FRONTEND_OPT_0=build-arg:WHO=everybody", "BUILDKIT_FRONTEND_OPT_1=target=app", "BUILDKIT_SESSION_ID=s")
	require.NoError(t, err, stderr)
	require.Empty(t, stderr)
	require.Nil(t, d.returned.Error)

	var config struct{ Config struct{ Entrypoint []string } }
	require.NoError(t, json.Unmarshal(d.returned.Result.Metadata["containerimage.config"], &config))
	require.Equal(t, []string{"/hello"}, config.Config.Entrypoint)
	require.Equal(t, "tree", d.returned.Result.GetRef().GetId())
	require.Contains(t, mkfiles(t, d.solved[len(d.solved)-1]), "hello everybody\n")
}

func TestAMistakeReachesTheDaemonWithItsLine(t *testing.T) {
	d := &daemon{dockerfile: "FROM scratch\nFROB x\n"}
	stderr, err := serve(t, build(t), d)
	require.Error(t, err)
	require.Contains(t, stderr, "unknown instruction: FROB")
	require.Contains(t, d.returned.Error.Message, "unknown instruction: FROB")
	var lines strings.Builder
	require.NoError(t, status.PrintSources(&lines, status.FromProto(d.returned.Error)))
	require.Contains(t, lines.String(), "   2 | >>> FROB x\n")
}

func TestTheChannelIsThatOfTheLanguage(t *testing.T) {
	program := build(t)
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"stable":          {nil, "device feature is only supported in Dockerfile frontend 1.14.0-labs or later"},
		"stable by name":  {[]string{"--channel=stable"}, "device feature is only supported in Dockerfile frontend 1.14.0-labs or later"},
		"labs":            {[]string{"--channel=labs"}, "RUN --device requires a daemon that gives steps devices"},
		"another":         {[]string{"--channel=nightly"}, `unknown channel "nightly": it is stable or labs`},
		"another option":  {[]string{"--chanel=labs"}, "flag provided but not defined: -chanel"},
		"another word":    {[]string{"labs"}, `unexpected argument "labs"`},
		"no value at all": {[]string{"--channel"}, "flag needs an argument"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{dockerfile: "FROM scratch\nRUN --device=vendor.example/gpu use\n"}
			stderr, err := serveWith(t, program, test.args, d)
			require.Error(t, err)
			require.Contains(t, stderr, test.says)
		})
	}
}

// mkfiles returns the contents of the files that a definition makes.
func mkfiles(t *testing.T, def *pb.Definition) []string {
	t.Helper()
	var contents []string
	for _, dt := range def.GetDef() {
		var op pb.Op
		require.NoError(t, proto.Unmarshal(dt, &op))
		for _, a := range op.GetFile().GetActions() {
			if f := a.GetMkfile(); f != nil {
				contents = append(contents, string(f.Data))
			}
		}
	}
	return contents
}

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "dockerfile-frontend")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}
