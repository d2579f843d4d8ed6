package dockerfile_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend"
	gwserver "github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/frontend/image"
)

// The frontend gives the same results built in, on the client's side, and as an image.
func TestGoldenIsTheSameWhereverTheFrontendRuns(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for way, build := range map[string]buildFunc{"client": buildAsClient, "image": buildAsImage} {
		t.Run(way, func(t *testing.T) {
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
					t.Parallel()
					archive, err := txtar.ParseFile(file)
					require.NoError(t, err)
					given, want := splitArchive(archive)
					require.Equal(t, want, runGolden(t, given, build))
				})
			}
		})
	}
}

// withCaps is a client whose daemon has the capabilities of the test's, and not all that there are.
type withCaps struct {
	gateway.Client
	d *daemon
}

func (c withCaps) BuildOpts() gateway.BuildOpts {
	opts := c.Client.BuildOpts()
	opts.LLBCaps, opts.Caps = c.d.opts.LLBCaps, c.d.opts.Caps
	return opts
}

// buildAs returns the frontend as it runs over a connection to d.
func buildAs(d *daemon) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		return d.frontend(ctx, withCaps{c, d})
	}
}

func buildAsClient(t *testing.T, d *daemon) (*gateway.Result, error) {
	t.Helper()
	srv := gwserver.NewServer(d)
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer))
	gatewaypb.RegisterLLBBridgeServer(s, srv)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///daemon",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithUnaryInterceptor(status.UnaryClient))
	require.NoError(t, err)
	defer func() {
		require.NoError(t, cc.Close())
		s.Stop()
		require.NoError(t, <-served)
	}()
	conn, err := gateway.Connect(t.Context(), gatewaypb.NewLLBBridgeClient(cc), gateway.Config{Opts: d.opts.Opts, SessionID: d.opts.SessionID})
	require.NoError(t, err)
	failed := conn.Run(t.Context(), buildAs(d))
	res, returned, err := srv.Returned()
	require.True(t, returned)
	require.Equal(t, failed != nil, err != nil)
	return res, err
}

// runner runs the frontend in place of the program of an image.
type runner struct{ *daemon }

func (r runner) RunProgram(ctx context.Context, p frontend.Program) error {
	r.solved = nil // its own tree
	err := gateway.Serve(ctx, io.NopCloser(p.Stdin), nopCloser{p.Stdout}, p.Env, buildAs(r.daemon))
	if err != nil {
		return &status.ExitError{Code: 1}
	}
	return nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

const frontendConfig = `{"config":{"Labels":{"moby.buildkit.frontend.caps":"moby.buildkit.frontend.inputs,` +
	`moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts,moby.buildkit.frontend.gitquerystring"}}}`

func buildAsImage(t *testing.T, d *daemon) (*gateway.Result, error) {
	t.Helper()
	d.opts.Opts["source"] = "example.com/frontend:1"
	d.images["example.com/frontend:1"] = frontendConfig
	return image.New(image.Config{}).Build(t.Context(), runner{d})
}
