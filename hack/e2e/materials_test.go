package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/proto"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// What a build within the build was made of is not told, and so the materials are not complete.
func TestPredicatesOfABuildWithinABuild(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	inner := llb.Image("busybox").Run(llb.Shell("echo made >/out/made"), llb.Network(pb.NetMode_NONE)).AddMount("/out", llb.Scratch()).GetMount("/out")
	embedded, err := proto.MarshalOptions{Deterministic: true}.Marshal(marshal(t, inner))
	require.NoError(t, err)
	file := llb.Scratch().File(llb.Mkfile("/buildkit.llb.definition", 0o600, embedded))
	outer := llb.Scratch().File(llb.Copy(llb.Build(file, ""), "/made", "/copied"))
	definition := marshal(t, outer)
	name := registry.Host + "/out/nested:1"
	for file, attest := range map[string]string{"nested-v1": "version=v1", "nested-v02": "version=v0.2"} {
		t.Run(file, func(t *testing.T) {
			r := solve(t, d, definition, "--opt=attest:provenance="+attest, "--output=type=image,name="+name+",push=true").wait(t)
			require.Zero(t, r.Code, r.Stderr)
			_, all := attested(t, pulledIndex(t, name), "linux/amd64")
			require.Len(t, all, 1)
			requireShape(t, all[0].PredicateType, all[0].Predicate)
			text := normalised(t, all[0].Predicate, map[string]string{registry.Host: "registry.example"})
			require.NotContains(t, text, "hermetic", "though nothing had a network")
			require.NotContains(t, text, "pkg:docker", "images of the build within are not known")
			step := base64.StdEncoding.EncodeToString(embedded)
			require.Contains(t, text, step)
			requireGolden(t, file, strings.Replace(text, step, "<definition>", 1))
		})
	}

	withFolder := marshal(t, outer.File(llb.Copy(llb.Local("folder"), "/file", "/file")))
	folder, err := filesync.NewFS(tree(t, map[string]string{"file": "contents\n"}))
	require.NoError(t, err)
	defer folder.Close()
	c := connectTo(t, d)
	nested := &errdefspb.ProvenanceMaterialIncomplete{Op: "build", Reason: "nested_build"}
	local := &errdefspb.ProvenanceMaterialIncomplete{Op: "local", Name: "folder", Reason: "local_source"}
	for what, tc := range map[string]struct {
		definition *pb.Definition
		want       []*errdefspb.ProvenanceMaterialIncomplete
		text       string
	}{
		"a build within":              {definition, []*errdefspb.ProvenanceMaterialIncomplete{nested}, "nested_build"},
		"a folder and a build within": {withFolder, []*errdefspb.ProvenanceMaterialIncomplete{local, nested}, "local_source folder, nested_build"},
	} {
		t.Run(what, func(t *testing.T) {
			opt := bkclient.SolveOpt{
				FrontendAttrs: map[string]string{"attest:provenance": "complete-materials=true"},
				LocalMounts:   map[string]fsutil.FS{"folder": folder},
				Exports:       []bkclient.Export{{Type: "local", OutputDir: t.TempDir()}},
			}
			_, err := c.Solve(t.Context(), tc.definition, opt)
			require.ErrorContains(t, err, "provenance materials are incomplete: "+tc.text)
			var incomplete *status.MaterialsIncompleteError
			require.ErrorAs(t, err, &incomplete)
			require.Len(t, incomplete.Incomplete, len(tc.want))
			for i, want := range tc.want {
				require.True(t, proto.Equal(want, incomplete.Incomplete[i]), incomplete.Incomplete[i])
			}
		})
	}
	d.RequireIdle(t)
}

// What the input of a frontend was made of is part of what the result was made of: the image that was looked
// up for it, and the folder that its Dockerfile came from.
func TestWhatInputsWereMadeOfIsTold(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	c := connectTo(t, d)
	repo, _ := repository(t, map[string]string{"Dockerfile": "FROM base\nRUN true\n"}, nil)
	locals := fsOf(t, dockerfile(t, "FROM busybox", "ARG LEVEL", "RUN true"))
	name := registry.Host + "/out/input:1"
	build := func(attrs map[string]string) error {
		attrs["build-arg:TOP"] = "1"
		_, err := c.Build(t.Context(), bkclient.SolveOpt{
			LocalMounts: locals, FrontendAttrs: attrs,
			Exports: []bkclient.Export{{Type: "image", Attrs: map[string]string{"name": name, "push": "true"}}},
		}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: map[string]string{"build-arg:LEVEL": "2"}})
			if err != nil {
				return nil, err
			}
			base, err := res.SingleRef()
			if err != nil {
				return nil, err
			}
			return g.Solve(ctx, gateway.SolveRequest{
				Frontend: "dockerfile.v0", FrontendOpt: map[string]string{"context": repo + "#main", "context:base": "input:base"},
				FrontendInputs: map[string]*pb.Definition{"base": base.Definition()},
			})
		})
		return err
	}
	told := func(attest string) shapeV1 {
		t.Helper()
		require.NoError(t, build(map[string]string{"attest:provenance": attest}))
		_, all := attested(t, pulledIndex(t, name), "linux/amd64")
		require.Len(t, all, 1)
		requireShape(t, all[0].PredicateType, all[0].Predicate)
		var p shapeV1
		require.NoError(t, json.Unmarshal(all[0].Predicate, &p))
		return p
	}
	most := told("mode=max")
	require.False(t, most.Run.Metadata.Complete.Dependencies)
	require.True(t, most.Run.Metadata.Complete.Request)
	require.Equal(t, []struct{ Name string }{{"context"}, {"dockerfile"}}, most.Definition.External.Request.Locals)
	require.Len(t, most.Definition.Materials, 2)
	require.Equal(t, "pkg:docker/busybox@latest?platform=linux%2Famd64", most.Definition.Materials[0].URI, "by its tag")
	require.Equal(t, repo+"#main", most.Definition.Materials[1].URI)
	require.Equal(t, map[string]string{"build-arg:LEVEL": "2"}, most.Definition.External.Request.Inputs["base"].Request.Args)
	require.Equal(t, map[string]string{"build-arg:TOP": "1"}, most.Definition.External.Request.Root.Request.Args)
	require.Equal(t, most.Definition.Materials[1].Digest, most.Definition.External.ConfigSource.Digest)

	least := told("mode=min")
	require.False(t, least.Run.Metadata.Complete.Request, "arguments of inputs and of the client are left out too")
	require.Empty(t, least.Definition.External.Request.Inputs["base"].Request.Args)
	require.Empty(t, least.Definition.External.Request.Root.Request.Args)
	require.Equal(t, most.Definition.Materials, least.Definition.Materials)

	require.ErrorContains(t, build(map[string]string{"attest:provenance": "complete-materials=true"}), "incomplete: local_source context, local_source dockerfile")
}

// A graph is told as it was built: with what a policy has put in the place of a source, and all that stands on it.
func TestWhatAPolicyHasReplacedIsTold(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	web := httptest.NewServer(http.FileServer(http.Dir(tree(t, map[string]string{"one": "1", "two": "2"}))))
	defer web.Close()
	dir := dockerfile(t, "FROM busybox", "ADD "+web.URL+"/one /number", "RUN cat /number")
	name := registry.Host + "/out/replaced:1"
	ref, r := recorded(t, d, dir, policyFile(t, converts(web.URL+"/one", web.URL+"/two")),
		"--opt=attest:provenance=mode=max", "--output=type=image,push=true,name="+name)
	require.Zero(t, r.Code, r.Stderr)
	_, all := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Len(t, all, 1)
	layers := layerDigests(t, pulled(t, name))
	require.Len(t, layers, 3)
	for _, predicate := range []string{string(all[0].Predicate), recordedPredicate(t, d, ref)} {
		var p shapeV1
		require.NoError(t, json.Unmarshal([]byte(predicate), &p))
		require.Equal(t, web.URL+"/two", p.Definition.Materials[1].URI)
		require.NotContains(t, predicate, web.URL+"/one", "but in the Dockerfile, which is in base64")
		require.NotEmpty(t, stepOf(t, []byte(predicate), web.URL+"/two"))
		base, added, ran := stepOf(t, []byte(predicate), "docker-image://"), stepOf(t, []byte(predicate), `"copy":`), stepOf(t, []byte(predicate), "cat /number")
		require.Equal(t, map[string][]string{base + ":0": layers[:1], added + ":0": layers[:2], ran + ":0": layers}, layersTold(t, []byte(predicate)))
		lines := map[string]int32{base: 1, added: 2, ran: 3}
		for step, line := range lines {
			require.Equal(t, line, p.Run.Metadata.BuildKit.Source.Locations[step].Locations[0].Ranges[0].Start.Line, step)
		}
	}
	require.Contains(t, lastSamples(t, recordedPredicate(t, d, ref)), "cat /number")
}

// layersTold returns the layers of steps in a predicate of version 1, as digests by step and output.
func layersTold(t *testing.T, predicate []byte) map[string][]string {
	t.Helper()
	var p shapeV1
	require.NoError(t, json.Unmarshal(predicate, &p))
	told := map[string][]string{}
	for step, forms := range p.Run.Metadata.BuildKit.Layers {
		require.Len(t, forms, 1, step)
		for _, l := range forms[0] {
			told[step] = append(told[step], l.Digest.String())
		}
	}
	return told
}

// stepOf returns the step of a predicate of version 1 whose op has a text in it.
func stepOf(t *testing.T, predicate []byte, text string) string {
	t.Helper()
	var p shapeV1
	require.NoError(t, json.Unmarshal(predicate, &p))
	var internal shapeInternal
	require.NoError(t, json.Unmarshal(p.Definition.Internal, &internal))
	var found []string
	for _, s := range internal.Config.Steps {
		op, err := json.Marshal(s.Op)
		require.NoError(t, err)
		if strings.Contains(string(op), text) {
			found = append(found, s.ID)
		}
	}
	require.Len(t, found, 1, text)
	return found[0]
}

// layerDigests returns the digests of the layers of an image in a registry.
func layerDigests(t *testing.T, image v1.Image) []string {
	t.Helper()
	manifest, err := image.Manifest()
	require.NoError(t, err)
	var all []string
	for _, l := range manifest.Layers {
		all = append(all, l.Digest.String())
	}
	return all
}

// Layers of all steps are told that there are, and none is made to be told.
func TestLayersOfOtherStagesAreToldIfThereAreAny(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	dir := dockerfile(t,
		"FROM busybox AS tools", "RUN echo tool >/tool",
		"FROM scratch", "COPY --from=tools /tool /tool",
	)
	both := func(args ...string) (attestation, record []byte) {
		name := registry.Host + "/out/layers:1"
		ref, r := recorded(t, d, dir, append(args, "--opt=attest:provenance=mode=max", "--output=type=image,push=true,rewrite-timestamp=true,name="+name, "--opt=build-arg:SOURCE_DATE_EPOCH=1767225600")...)
		require.Zero(t, r.Code, r.Stderr)
		_, all := attested(t, pulledIndex(t, name), "linux/amd64")
		require.Len(t, all, 1)
		return all[0].Predicate, []byte(recordedPredicate(t, d, ref))
	}
	attestation, record := both()
	from, run, copied := stepOf(t, attestation, "docker-image://")+":0", stepOf(t, attestation, "echo tool")+":0", stepOf(t, attestation, `"copy":`)+":0"
	base := layerDigests(t, pulled(t, registry.Host+"/library/busybox:latest"))
	image := layerDigests(t, pulled(t, registry.Host+"/out/layers:1"))
	want := map[string][]string{from: base, copied: image}
	require.Equal(t, want, layersTold(t, attestation), "what is copied from is no layer of anything")
	require.Equal(t, want, layersTold(t, record))

	d.Build(t, dir, "--opt=target=tools", "--output=type=image,push=true,name="+registry.Host+"/out/tools:1")
	want[run] = layerDigests(t, pulled(t, registry.Host+"/out/tools:1"))
	attestation, record = both()
	require.Equal(t, want, layersTold(t, attestation), "now it is")
	require.Equal(t, want, layersTold(t, record))
}
