package gateway_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// constants returns the values of the string constants of a file.
func constants(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	var values []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, v := range spec.Values {
				literal, ok := v.(*ast.BasicLit)
				require.True(t, ok, "%s holds literals only", path)
				s, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				values = append(values, s)
			}
		}
		return true
	})
	return values
}

type call func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error

// Each capability of the gateway stands here with the call that it promises: one that is
// advertised works, one that is not is Unimplemented.
func TestAdvertisedGatewayCapabilitiesAreThoseThatWork(t *testing.T) {
	solve := func(req *gatewaypb.SolveRequest) call {
		return func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
			_, err := c.Solve(ctx, req)
			return err
		}
	}
	ret := func(form func(ref string) *gatewaypb.Result) call {
		return func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			_, err := c.Return(ctx, &gatewaypb.ReturnRequest{Result: form(ref)})
			return err
		}
	}
	resolveImage := func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
		_, err := c.ResolveImageConfig(ctx, &gatewaypb.ResolveImageConfigRequest{Ref: "alpine", ResolveMode: "local"})
		return err
	}
	resolve := func(req *gatewaypb.ResolveSourceMetaRequest) call {
		return func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
			req.Source = &pb.SourceOp{Identifier: "docker-image://alpine"}
			_, err := c.ResolveSourceMeta(ctx, req)
			return err
		}
	}
	container := func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
		_, err := c.NewContainer(ctx, &gatewaypb.NewContainerRequest{
			ContainerID: "c", Mounts: []*pb.Mount{{Dest: "/"}}, ExtraHosts: []*pb.HostIP{{Host: "h", IP: "1.2.3.4"}},
		})
		return err
	}
	exec := func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
		if err := container(ctx, c, ref); err != nil {
			return err
		}
		stream, err := c.ExecProcess(ctx)
		if err != nil {
			return err
		}
		init := command("sleep")
		init.Secretenv = []*pb.SecretEnv{{ID: "id", Name: "NAME"}}
		err = errors.Join(stream.Send(process("p", init)), stream.Send(process("p", &gatewaypb.SignalMessage{Name: "TERM"})))
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	works := map[string]call{
		gatewaypb.CapGatewayExec:           exec,
		gatewaypb.CapGatewayExecExtraHosts: container,
		gatewaypb.CapGatewayExecSecretEnv:  exec,
		gatewaypb.CapGatewayExecSignals:    exec,
		gatewaypb.CapGatewayExecFilesystem: func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			if err := container(ctx, c, ref); err != nil {
				return err
			}
			_, err := c.ReadFileContainer(ctx, &gatewaypb.ReadFileRequest{Ref: "c", FilePath: "/f"})
			return err
		},
		gatewaypb.CapSolveBase:               solve(&gatewaypb.SolveRequest{}),
		gatewaypb.CapSolveInlineReturn:       solve(&gatewaypb.SolveRequest{Final: true}),
		gatewaypb.CapGatewaySolveMetadata:    solve(&gatewaypb.SolveRequest{AllowResultReturn: true}),
		gatewaypb.CapGatewaySolveEvaluate:    solve(&gatewaypb.SolveRequest{Evaluate: true}),
		gatewaypb.CapReferenceOutput:         solve(&gatewaypb.SolveRequest{AllowResultReturn: true, AllowResultArrayRef: true}),
		gatewaypb.CapResolveImage:            resolveImage,
		gatewaypb.CapResolveImageResolveMode: resolveImage,
		gatewaypb.CapSourceMetaResolver:      resolve(&gatewaypb.ResolveSourceMetaRequest{}),
		gatewaypb.CapSourceMetaResolverImageAttestations: resolve(&gatewaypb.ResolveSourceMetaRequest{
			Image: &gatewaypb.ResolveSourceImageRequest{AttestationChain: true},
		}),
		gatewaypb.CapSourceMetaResolverHTTPChecksumRequest: resolve(&gatewaypb.ResolveSourceMetaRequest{
			HTTP: &gatewaypb.ResolveSourceHTTPRequest{ChecksumRequest: &gatewaypb.ChecksumRequest{}},
		}),
		gatewaypb.CapReadFile: func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			_, err := c.ReadFile(ctx, &gatewaypb.ReadFileRequest{Ref: ref, FilePath: "/f"})
			return err
		},
		gatewaypb.CapReadDir: func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			_, err := c.ReadDir(ctx, &gatewaypb.ReadDirRequest{Ref: ref})
			return err
		},
		gatewaypb.CapStatFile: func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			_, err := c.StatFile(ctx, &gatewaypb.StatFileRequest{Ref: ref})
			return err
		},
		gatewaypb.CapGatewayEvaluate: func(ctx context.Context, c gatewaypb.LLBBridgeClient, ref string) error {
			_, err := c.Evaluate(ctx, &gatewaypb.EvaluateRequest{Ref: ref})
			return err
		},
		gatewaypb.CapGatewayWarnings: func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
			_, err := c.Warn(ctx, &gatewaypb.WarnRequest{Digest: digest.FromString("v").String()})
			return err
		},
		gatewaypb.CapFrontendInputs: func(ctx context.Context, c gatewaypb.LLBBridgeClient, _ string) error {
			_, err := c.Inputs(ctx, &gatewaypb.InputsRequest{})
			return err
		},
		// The option is read by package image, whose tests hold it.
		gatewaypb.CapFrontendCaps: solve(&gatewaypb.SolveRequest{Frontend: "f", FrontendOpt: map[string]string{"frontend.caps": "c"}}),
		gatewaypb.CapReturnResult: ret(func(ref string) *gatewaypb.Result {
			return &gatewaypb.Result{Result: &gatewaypb.Result_RefDeprecated{RefDeprecated: ref}}
		}),
		gatewaypb.CapReturnMap: ret(func(ref string) *gatewaypb.Result {
			refs := &gatewaypb.RefMapDeprecated{Refs: map[string]string{"p": ref}}
			return &gatewaypb.Result{Result: &gatewaypb.Result_RefsDeprecated{RefsDeprecated: refs}}
		}),
		gatewaypb.CapProtoRefArray: ret(func(ref string) *gatewaypb.Result {
			return &gatewaypb.Result{Result: &gatewaypb.Result_Ref{Ref: &gatewaypb.Ref{Id: ref}}}
		}),
		gatewaypb.CapReferenceAttestations: ret(func(ref string) *gatewaypb.Result {
			return &gatewaypb.Result{Attestations: map[string]*gatewaypb.Attestations{
				"p": {Attestation: []*gatewaypb.Attestation{{Ref: &gatewaypb.Ref{Id: ref}}}},
			}}
		}),
	}
	missing := map[string]call{
		gatewaypb.CapImportCaches: nil, // there are no remote caches to import
	}

	require.ElementsMatch(t, constants(t, "../../api/gateway/caps.go"),
		slices.Concat(slices.Collect(maps.Keys(works)), slices.Collect(maps.Keys(missing))), "an id stands nowhere")
	require.ElementsMatch(t, slices.Collect(maps.Keys(gateway.Caps())), slices.Collect(maps.Keys(works)))

	run := func(t *testing.T, fn call) error {
		t.Helper()
		bridge := solved(&client.Result{Ref: &fakeRef{file: "a"}})
		bridge.meta = &client.SourceMeta{Image: &client.ImageMeta{}}
		bridge.container = func(client.NewContainerRequest) (client.Container, error) { return newFakeContainer(programs), nil }
		c := serve(t, gateway.NewServer(bridge))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
		require.NoError(t, err)
		return fn(t.Context(), c, resp.GetRef())
	}
	for id, fn := range works {
		require.NoError(t, run(t, fn), id)
	}
	for id, fn := range missing {
		if fn != nil {
			require.Equal(t, codes.Unimplemented, status.Code(run(t, fn)), id)
		}
	}
}

// An id leaves this list when what it stands for is implemented.
func TestEveryLLBCapabilityIsAdvertisedOrKnownToBeMissing(t *testing.T) {
	missing := []string{
		pb.CapExecMetaNetworkProxy,
		pb.CapCacheGHA, pb.CapCacheS3, pb.CapCacheAzBlob,
	}
	require.ElementsMatch(t, constants(t, "../../api/llb/caps.go"),
		slices.Concat(missing, slices.Collect(maps.Keys(gateway.LLBCaps()))))
	for _, id := range missing {
		err := gateway.CheckLLB(id)
		require.EqualError(t, err, "unknown API capability "+id)
		require.Equal(t, codes.Unimplemented, status.Code(err))
	}
	for id := range gateway.LLBCaps() {
		require.NoError(t, gateway.CheckLLB(id))
	}
	for _, id := range []string{"exec.meta.removemountstubs.recursive", "file.copy.modestring"} {
		require.NoError(t, gateway.CheckLLB(id))
		require.NotContains(t, gateway.LLBCaps(), id)
	}
}

func TestPingTellsCapabilitiesAndWorkers(t *testing.T) {
	c := serve(t, gateway.NewServer(&fakeBridge{}))
	pong, err := c.Ping(t.Context(), &gatewaypb.PingRequest{})
	require.NoError(t, err)
	deprecated := 0
	for _, c := range slices.Concat(pong.GetFrontendAPICaps(), pong.GetLLBCaps()) {
		require.True(t, c.GetEnabled(), c.GetID())
		if c.GetDeprecated() {
			deprecated++
		}
	}
	require.Equal(t, 1, deprecated)
	require.Len(t, pong.GetFrontendAPICaps(), len(gateway.Caps()))
	require.Len(t, pong.GetLLBCaps(), len(gateway.LLBCaps()))
	require.Len(t, pong.GetWorkers(), 1)
	require.Equal(t, "w", pong.GetWorkers()[0].GetID())
	require.Equal(t, "v7", pong.GetWorkers()[0].GetPlatforms()[0].GetVariant())
}
