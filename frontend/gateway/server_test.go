package gateway_test

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

func TestSolveGivesReferencesInTheFormAskedFor(t *testing.T) {
	one := &client.Result{Ref: &fakeRef{file: "a"}, Metadata: map[string][]byte{"k": []byte("v")}}
	two := &client.Result{Refs: map[string]client.Reference{"p": &fakeRef{file: "a"}, "empty": nil}}
	def := &pb.Definition{Def: [][]byte{{1}}}

	t.Run("a message with its definition", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(one)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def, AllowResultReturn: true, AllowResultArrayRef: true})
		require.NoError(t, err)
		require.Equal(t, "v", string(resp.GetResult().GetMetadata()["k"]))
		require.NotEmpty(t, resp.GetResult().GetRef().GetId())
		require.Equal(t, "a", string(resp.GetResult().GetRef().GetDef().GetDef()[0]))
	})
	t.Run("a string", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(one)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def, AllowResultReturn: true})
		require.NoError(t, err)
		require.NotEmpty(t, resp.GetResult().GetRefDeprecated())
	})
	t.Run("a string beside the result", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(one)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def})
		require.NoError(t, err)
		require.NotEmpty(t, resp.GetRef())
		require.Nil(t, resp.GetResult())
	})
	t.Run("messages by platform, the empty tree without an id", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(two)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def, AllowResultReturn: true, AllowResultArrayRef: true})
		require.NoError(t, err)
		refs := resp.GetResult().GetRefs().GetRefs()
		require.Len(t, refs, 2)
		require.NotEmpty(t, refs["p"].GetId())
		require.Empty(t, refs["empty"].GetId())
	})
	t.Run("strings by platform", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(two)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def, AllowResultReturn: true})
		require.NoError(t, err)
		require.Len(t, resp.GetResult().GetRefsDeprecated().GetRefs(), 2)
	})
	t.Run("several references do not fit into one", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(two)))
		_, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: def})
		require.ErrorContains(t, err, "one reference per platform")
	})
	t.Run("an id is used once", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(one)))
		a, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
		require.NoError(t, err)
		b, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
		require.NoError(t, err)
		require.NotEqual(t, a.GetRef(), b.GetRef())
	})
	t.Run("a bridge without a result", func(t *testing.T) {
		c := serve(t, gateway.NewServer(solved(nil)))
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{AllowResultReturn: true, AllowResultArrayRef: true})
		require.NoError(t, err)
		require.Empty(t, resp.GetResult().GetRef().GetId())
	})
}

func TestSolveHandsTheRequestOver(t *testing.T) {
	var got client.SolveRequest
	bridge := &fakeBridge{solve: func(_ context.Context, req client.SolveRequest) (*client.Result, error) {
		got = req
		return nil, nil
	}}
	c := serve(t, gateway.NewServer(bridge))
	_, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{
		Definition:     &pb.Definition{},
		Frontend:       "dockerfile.v0",
		FrontendOpt:    map[string]string{"target": "x"},
		FrontendInputs: map[string]*pb.Definition{"in": {Def: [][]byte{{1}}}},
		CacheImports:   []*gatewaypb.CacheOptionsEntry{{Type: "local", Attrs: map[string]string{"src": "d"}}},
		Evaluate:       true,
	})
	require.NoError(t, err)
	require.Nil(t, got.Definition, "a definition without ops is none")
	require.Equal(t, "dockerfile.v0", got.Frontend)
	require.Equal(t, map[string]string{"target": "x"}, got.FrontendOpt)
	require.Contains(t, got.FrontendInputs, "in")
	require.Equal(t, []client.CacheImport{{Type: "local", Attrs: map[string]string{"src": "d"}}}, got.CacheImports)
	require.True(t, got.Evaluate)

	policies := []*sourcepolicypb.Policy{{Version: 1}, {Version: 2}}
	_, err = c.Solve(t.Context(), &gatewaypb.SolveRequest{SourcePolicies: policies})
	require.NoError(t, err)
	require.Len(t, got.SourcePolicies, 2)
	require.EqualValues(t, 2, got.SourcePolicies[1].Version)
	_, err = c.Solve(t.Context(), &gatewaypb.SolveRequest{Definition: &pb.Definition{Def: [][]byte{{1}}}, Frontend: "f"})
	require.EqualError(t, err, "cannot solve with both Definition and Frontend specified")
}

func TestReturnEndsTheBuildOnce(t *testing.T) {
	ref := &fakeRef{file: "a"}
	ask := func(t *testing.T) (*gateway.Server, gatewaypb.LLBBridgeClient, string) {
		t.Helper()
		srv := gateway.NewServer(solved(&client.Result{Ref: ref}))
		c := serve(t, srv)
		resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
		require.NoError(t, err)
		return srv, c, resp.GetRef()
	}
	refs := func(id string) map[string]*gatewaypb.Result {
		return map[string]*gatewaypb.Result{
			"a message": {Result: &gatewaypb.Result_Ref{Ref: &gatewaypb.Ref{Id: id}}},
			"a string":  {Result: &gatewaypb.Result_RefDeprecated{RefDeprecated: id}},
			"messages by platform": {Result: &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{
				Refs: map[string]*gatewaypb.Ref{"p": {Id: id}, "empty": {}},
			}}},
			"strings by platform": {Result: &gatewaypb.Result_RefsDeprecated{RefsDeprecated: &gatewaypb.RefMapDeprecated{
				Refs: map[string]string{"p": id, "empty": ""},
			}}},
		}
	}
	for name := range refs("") {
		t.Run(name, func(t *testing.T) {
			srv, c, id := ask(t)
			_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: refs(id)[name]})
			require.NoError(t, err)
			res, err := srv.Result(t.Context())
			require.NoError(t, err)
			if res.Refs != nil {
				require.Equal(t, map[string]client.Reference{"p": ref, "empty": nil}, res.Refs)
			} else {
				require.Same(t, ref, res.Ref)
			}
		})
		t.Run(name+" that was never given", func(t *testing.T) {
			_, c, _ := ask(t)
			_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: refs("nope")[name]})
			require.EqualError(t, err, "return reference nope not found")
		})
	}
	t.Run("an empty result", func(t *testing.T) {
		srv, c, _ := ask(t)
		_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
		require.NoError(t, err)
		res, err := srv.Result(t.Context())
		require.NoError(t, err)
		require.Equal(t, &client.Result{}, res)
	})
	t.Run("an error goes before a result and keeps its type", func(t *testing.T) {
		srv, c, _ := ask(t)
		_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{
			Result: &gatewaypb.Result{},
			Error:  status.Proto(&status.ExitError{Code: 7, Err: errors.New("no luck")}),
		})
		require.NoError(t, err)
		_, err = srv.Result(t.Context())
		var exit *status.ExitError
		require.ErrorAs(t, err, &exit)
		require.EqualValues(t, 7, exit.Code)
		require.EqualError(t, err, "no luck")
	})
	t.Run("nothing", func(t *testing.T) {
		_, c, _ := ask(t)
		_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{})
		require.EqualError(t, err, "gateway return must be either result or err")
		_, err = c.Return(t.Context(), &gatewaypb.ReturnRequest{Error: &spb.Status{}})
		require.EqualError(t, err, "gateway return must be either result or err")
	})
	t.Run("a second time", func(t *testing.T) {
		_, c, _ := ask(t)
		_, err := c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
		require.NoError(t, err)
		_, err = c.Return(t.Context(), &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{}})
		require.EqualError(t, err, "gateway result is already set")
	})
	t.Run("with a solve that is the final one", func(t *testing.T) {
		srv, c, _ := ask(t)
		_, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{Final: true, ExporterAttr: []byte(`{"k":"dg=="}`)})
		require.NoError(t, err)
		res, err := srv.Result(t.Context())
		require.NoError(t, err)
		require.Same(t, ref, res.Ref)
		require.Equal(t, map[string][]byte{"k": []byte("v")}, res.Metadata)
		_, err = c.Solve(t.Context(), &gatewaypb.SolveRequest{Final: true, ExporterAttr: []byte(`[]`)})
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	})
	t.Run("not at all", func(t *testing.T) {
		srv, _, _ := ask(t)
		gone := errors.New("client is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		_, err := srv.Result(ctx)
		require.ErrorIs(t, err, gone)
	})
}

func TestReferencesAreRead(t *testing.T) {
	const tooMuch = 16 << 20
	evaluated := false
	ref := repeat(tooMuch)
	ref.evaluated = func() { evaluated = true }
	c := serve(t, gateway.NewServer(solved(&client.Result{Ref: ref})))
	resp, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
	require.NoError(t, err)
	id := resp.GetRef()

	read := func(path string, r *gatewaypb.FileRange) (int, error) {
		resp, err := c.ReadFile(t.Context(), &gatewaypb.ReadFileRequest{Ref: id, FilePath: path, Range: r})
		return len(resp.GetData()), err
	}
	n, err := read("/f", &gatewaypb.FileRange{Offset: tooMuch - 10, Length: 100})
	require.NoError(t, err)
	require.Equal(t, 10, n)
	n, err = read("/f", &gatewaypb.FileRange{Offset: 3})
	require.NoError(t, err)
	require.Zero(t, n, "a range of no bytes")
	_, err = read("/f", nil)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = read("/f", &gatewaypb.FileRange{Length: 1 << 62})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = read("/f", &gatewaypb.FileRange{Offset: -1, Length: 1})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = read("/absent", nil)
	require.ErrorContains(t, err, "open /absent: ")

	dir, err := c.ReadDir(t.Context(), &gatewaypb.ReadDirRequest{Ref: id, DirPath: "/d", IncludePattern: "*.go"})
	require.NoError(t, err)
	require.Equal(t, "/d,*.go", dir.GetEntries()[0].GetPath())
	stat, err := c.StatFile(t.Context(), &gatewaypb.StatFileRequest{Ref: id, Path: "/f"})
	require.NoError(t, err)
	require.Equal(t, "/f", stat.GetStat().GetPath())
	_, err = c.Evaluate(t.Context(), &gatewaypb.EvaluateRequest{Ref: id})
	require.NoError(t, err)
	require.True(t, evaluated)

	_, err = c.Evaluate(t.Context(), &gatewaypb.EvaluateRequest{})
	require.EqualError(t, err, "empty ref: ")
	_, err = c.StatFile(t.Context(), &gatewaypb.StatFileRequest{Ref: "nope"})
	require.EqualError(t, err, "no such ref: nope, all ["+id+"]")
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestSourcesAreResolved(t *testing.T) {
	dgst := digest.FromString("x")
	bridge := &fakeBridge{meta: &client.SourceMeta{Image: &client.ImageMeta{Digest: dgst, Config: []byte("{}")}}}
	c := serve(t, gateway.NewServer(bridge))

	image, err := c.ResolveImageConfig(t.Context(), &gatewaypb.ResolveImageConfigRequest{
		Ref: "alpine", Platform: &pb.Platform{OS: "linux", Architecture: "arm64"}, ResolveMode: "pull", LogName: "log",
	})
	require.NoError(t, err)
	require.Equal(t, "alpine", image.GetRef())
	require.Equal(t, dgst.String(), image.GetDigest())
	require.Equal(t, "{}", string(image.GetConfig()))
	require.Equal(t, "docker-image://alpine", bridge.resolved.GetIdentifier())
	require.Equal(t, "arm64", bridge.opt.Platform.Architecture)
	require.Equal(t, "pull", bridge.opt.ResolveMode)
	require.Equal(t, "log", bridge.opt.LogName)

	_, err = c.ResolveImageConfig(t.Context(), &gatewaypb.ResolveImageConfigRequest{Ref: "a@b", ResolverType: 1, SessionID: "s", StoreID: "st"})
	require.NoError(t, err)
	require.Equal(t, "oci-layout://a@b", bridge.resolved.GetIdentifier())
	require.Equal(t, map[string]string{"oci.session": "s", "oci.store": "st"}, bridge.resolved.GetAttrs())
	require.Nil(t, bridge.opt.Platform)

	_, err = c.ResolveImageConfig(t.Context(), &gatewaypb.ResolveImageConfigRequest{Ref: "alpine", ResolverType: 2})
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	meta, err := c.ResolveSourceMeta(t.Context(), &gatewaypb.ResolveSourceMetaRequest{
		Source: &pb.SourceOp{Identifier: "docker-image://alpine"},
		Image:  &gatewaypb.ResolveSourceImageRequest{NoConfig: true},
	})
	require.NoError(t, err)
	require.True(t, bridge.opt.NoConfig)
	require.Equal(t, dgst.String(), meta.GetImage().GetDigest())
	require.Equal(t, "docker-image://alpine", meta.GetSource().GetIdentifier())

	policies := []*sourcepolicypb.Policy{{Version: 3}}
	_, err = c.ResolveSourceMeta(t.Context(), &gatewaypb.ResolveSourceMetaRequest{Source: &pb.SourceOp{}, SourcePolicies: policies})
	require.NoError(t, err)
	require.Len(t, bridge.opt.SourcePolicies, 1)
	_, err = c.ResolveImageConfig(t.Context(), &gatewaypb.ResolveImageConfigRequest{Ref: "a", SourcePolicies: append(policies, policies...)})
	require.NoError(t, err)
	require.Len(t, bridge.opt.SourcePolicies, 2)

	_, err = c.ResolveSourceMeta(t.Context(), &gatewaypb.ResolveSourceMetaRequest{})
	require.EqualError(t, err, "source is required")
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	bridge.meta = &client.SourceMeta{Op: &pb.SourceOp{Identifier: "https://example.com/x"}}
	_, err = c.ResolveImageConfig(t.Context(), &gatewaypb.ResolveImageConfigRequest{Ref: "alpine"})
	require.EqualError(t, err, "alpine resolves to https://example.com/x, which is not an image")
}

func TestWarningsPass(t *testing.T) {
	bridge := &fakeBridge{}
	c := serve(t, gateway.NewServer(bridge))
	_, err := c.Warn(t.Context(), &gatewaypb.WarnRequest{Digest: digest.FromString("v").String(), Short: []byte("s"), Url: "u"})
	require.NoError(t, err)
	require.Equal(t, []client.WarnOpt{{Level: 1, URL: "u"}}, bridge.warned)
	_, err = c.Warn(t.Context(), &gatewaypb.WarnRequest{Digest: "v"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = gateway.NewServer(bridge).Warn(t.Context(), &gatewaypb.WarnRequest{Digest: digest.FromString("v").String(), Ranges: []*pb.Range{nil}})
	require.EqualError(t, err, "invalid source range")
}

func TestReferencesAndDefinitionsAreLimited(t *testing.T) {
	s := gateway.NewServer(solved(&client.Result{Ref: &fakeRef{}}))
	// Requests share the bytes of one definition: the limit is for a daemon that received them.
	large := &gatewaypb.SolveRequest{Definition: &pb.Definition{Def: [][]byte{make([]byte, 15<<20)}}}
	solves := func(req *gatewaypb.SolveRequest) (n int, err error) {
		for err == nil {
			n++
			_, err = s.Solve(t.Context(), req)
		}
		return n, err
	}
	n, err := solves(large)
	require.EqualError(t, err, "the definitions of a build have at most 1073741824 bytes")
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Greater(t, n, 60)
	n, err = solves(&gatewaypb.SolveRequest{})
	require.EqualError(t, err, "a build has at most 100000 references")
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Greater(t, n, 90_000)
}
