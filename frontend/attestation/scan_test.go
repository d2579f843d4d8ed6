package attestation_test

import (
	"context"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/attestation"
)

// daemon has one image and keeps what is solved.
type daemon struct {
	gateway.Client
	config string
	// replaced is what a policy makes of the image.
	replaced string
	resolved gateway.ResolveOpt
	solved   *pb.Definition
}

type reference struct{ gateway.Reference }

func (d *daemon) BuildOpts() gateway.BuildOpts {
	return gateway.BuildOpts{Workers: []gateway.WorkerInfo{{Platforms: []ocispec.Platform{platforms.MustParse("linux/riscv64")}}}}
}

func (d *daemon) ResolveSourceMeta(_ context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	d.resolved = opt
	if d.replaced != "" {
		op = &pb.SourceOp{Identifier: d.replaced}
	}
	return &gateway.SourceMeta{Op: op, Image: &gateway.ImageMeta{Digest: digest.FromString("i"), Config: []byte(d.config)}}, nil
}

func (d *daemon) Solve(_ context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	d.solved = req.Definition
	return &gateway.Result{Ref: reference{}}, nil
}

// ops returns the ops of a definition and what progress shows of them.
func ops(t *testing.T, def *pb.Definition) (all []*pb.Op, names map[string]string) {
	t.Helper()
	names = map[string]string{}
	for _, data := range def.GetDef() {
		op := &pb.Op{}
		require.NoError(t, proto.Unmarshal(data, op))
		all = append(all, op)
		dgst := digest.FromBytes(data).String()
		names[dgst] = def.GetMetadata()[dgst].GetDescription()["llb.customname"]
	}
	return all, names
}

func marshal(t *testing.T, s llb.State) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(t.Context(), llb.Platform(platforms.MustParse("linux/arm64")))
	require.NoError(t, err)
	return def
}

func TestAScannerIsRunOnTheResultAndBeside(t *testing.T) {
	d := &daemon{config: `{"config":{"Entrypoint":["/scan"],"Cmd":["all"],"Env":["PATH=/bin","A=b=c"],"WorkingDir":"/w","User":"nobody"}}`}
	request, err := attestation.ParseSBOM(map[string]string{"generator": "example/scanner", "depth": "3"})
	require.NoError(t, err)
	scanner, err := request.Resolve(t.Context(), d, attestation.Options{ResolveMode: llb.ResolveForcePull, IgnoreCache: true})
	require.NoError(t, err)
	require.Equal(t, "pull", d.resolved.ResolveMode)
	require.Equal(t, "linux/riscv64", platforms.Format(*d.resolved.Platform), "the scanner runs here whatever it scans")

	core := marshal(t, llb.Image("docker.io/library/core:1").Run(llb.Shlex("build")).Root())
	stage := marshal(t, llb.Local("stage"))
	a, err := scanner.Attest(t.Context(), platforms.MustParse("linux/arm64"), core, []attestation.Tree{{Name: "build", Definition: stage}})
	require.NoError(t, err)
	require.Equal(t, gatewaypb.AttestationKind_Bundle, a.Kind)
	require.Equal(t, "https://spdx.dev/Document", a.PredicateType)
	require.Equal(t, map[string][]byte{"reason": []byte("sbom"), "sbom-core": []byte("sbom")}, a.Metadata)
	require.Equal(t, reference{}, a.Ref)

	all, names := ops(t, d.solved)
	run := all[len(all)-2]
	exec := run.GetExec()
	require.Equal(t, []string{"/scan", "all"}, exec.Meta.Args)
	require.Equal(t, "/w", exec.Meta.Cwd)
	require.Empty(t, exec.Meta.User, "what it writes to belongs to root")
	require.Subset(t, exec.Meta.Env, []string{
		"PATH=/bin", "A=b=c", "BUILDKIT_SCAN_depth=3", "BUILDKIT_SCAN_DESTINATION=/run/out/",
		"BUILDKIT_SCAN_SOURCE=/run/src/core/sbom", "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras/",
	})
	last := d.solved.Def[len(d.solved.Def)-2]
	dgst := digest.FromBytes(last).String()
	require.Equal(t, "[linux/arm64] generating sbom using docker.io/example/scanner:latest", names[dgst])
	require.True(t, d.solved.Metadata[dgst].GetIgnoreCache())
	require.Equal(t, "linux/riscv64", platforms.Format(run.Platform.Spec()))
	mounts := map[string]*pb.Mount{}
	for _, m := range exec.Mounts {
		mounts[m.Dest] = m
	}
	require.Equal(t, "docker-image://docker.io/example/scanner:latest@"+digest.FromString("i").String(), input(t, all, run, mounts["/"]).GetSource().GetIdentifier())
	require.Equal(t, pb.MountType_TMPFS, mounts["/tmp"].MountType)
	require.True(t, mounts["/run/src/core/sbom"].Readonly)
	require.True(t, mounts["/run/src/extras/sbom-build"].Readonly)
	require.Equal(t, "linux/arm64", platforms.Format(input(t, all, run, mounts["/run/src/core/sbom"]).Platform.Spec()), "as it was built")
	require.Equal(t, core.Def[len(core.Def)-2], encoded(t, input(t, all, run, mounts["/run/src/core/sbom"])))
	out := all[len(all)-1].Inputs[0]
	require.Equal(t, dgst, out.Digest)
	require.Equal(t, mounts["/run/out/"].GetOutput(), out.Index)
}

// input returns the op that a mount of a process is of.
func input(t *testing.T, all []*pb.Op, run *pb.Op, m *pb.Mount) *pb.Op {
	t.Helper()
	require.NotNil(t, m)
	for _, op := range all {
		if digest.FromBytes(encoded(t, op)).String() == run.Inputs[m.Input].Digest {
			return op
		}
	}
	t.Fatal("no such input")
	return nil
}

func encoded(t *testing.T, op *pb.Op) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	require.NoError(t, err)
	return data
}

func TestWithoutMoreToScanNothingIsSaidOfIt(t *testing.T) {
	d := &daemon{config: `{"config":{"Cmd":["scan"]}}`}
	request, err := attestation.ParseSBOM(nil)
	require.NoError(t, err)
	require.Equal(t, "docker.io/docker/buildkit-syft-scanner:stable-1", request.Generator)
	scanner, err := request.Resolve(t.Context(), d, attestation.Options{})
	require.NoError(t, err)
	_, err = scanner.Attest(t.Context(), platforms.MustParse("linux/amd64"), &pb.Definition{}, nil)
	require.NoError(t, err, "the empty tree can be scanned too")
	all, _ := ops(t, d.solved)
	for _, kv := range all[len(all)-2].GetExec().Meta.Env {
		require.NotContains(t, kv, "EXTRAS")
	}
}

func TestScannersThatCannotBeRunAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		attrs    map[string]string
		config   string
		replaced string
		err      string
	}{
		"no name":       {attrs: map[string]string{"generator": ""}, err: "sbom generator cannot be empty"},
		"no reference":  {attrs: map[string]string{"generator": "A B"}, err: "failed to parse sbom generator A B: "},
		"no command":    {attrs: map[string]string{"generator": "x"}, config: `{}`, err: "scanner docker.io/library/x:latest does not have cmd"},
		"no config":     {attrs: map[string]string{"generator": "x"}, config: `x`, err: "sbom generator docker.io/library/x:latest: failed to parse image config"},
		"not an image":  {attrs: map[string]string{"generator": "x"}, replaced: "https://example.org", err: "is replaced by what is not an image"},
		"another image": {attrs: map[string]string{"generator": "x"}, replaced: "docker-image://docker.io/o/y:1", config: `{"config":{"Cmd":["x"]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{config: tc.config, replaced: tc.replaced}
			request, err := attestation.ParseSBOM(tc.attrs)
			if err == nil {
				_, err = request.Resolve(t.Context(), d, attestation.Options{})
			}
			if tc.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.err)
		})
	}
}
