package wire

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/history"
	"github.com/openbuildkit/buildkit/solver/op"
)

// What the daemon is made of, and the capability that stands for it: it is advertised if, and only
// if, the part is there.
func TestAdvertisedCapabilitiesAreThoseOfTheParts(t *testing.T) {
	st, err := openState(t.TempDir())
	require.NoError(t, err)
	d := &daemon{}
	d.onClose(st.close)
	defer func() { require.NoError(t, d.close()) }()
	cfg := &config.Config{}
	cfg.SetDefaults(config.Host{Getenv: func(string) string { return "" }})
	sessions := session.NewManager()
	w, err := d.newWorker(t.Context(), cfg, st, sessions, newRegistry(cfg, sessions))
	require.NoError(t, err)
	caps := gateway.LLBCaps()

	for scheme, id := range map[string]string{
		"docker-image":      pb.CapSourceImage,
		"docker-image+blob": pb.CapSourceImageBlob,
		"oci-layout":        pb.CapSourceOCILayout,
		"local":             pb.CapSourceLocal,
		"git":               pb.CapSourceGit,
		"http":              pb.CapSourceHTTP,
		"https":             pb.CapSourceHTTP,
	} {
		require.Equal(t, w.Sources[scheme] != nil, caps[id], "%s and %s", scheme, id)
	}

	ops := op.NewFactory(w, sessions, op.DefaultLogLimits)
	for id, message := range map[string]*pb.Op{
		pb.CapExecMetaBase:          {Op: &pb.Op_Exec{Exec: &pb.ExecOp{}}},
		pb.CapFileBase:              {Op: &pb.Op_File{File: &pb.FileOp{}}},
		pb.CapSourceImage:           {Op: &pb.Op_Source{Source: &pb.SourceOp{}}},
		pb.CapSourceBuildOpFilename: {Op: &pb.Op_Build{Build: &pb.BuildOp{}}},
		pb.CapMergeOp:               {Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}},
		pb.CapDiffOp:                {Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}},
		pb.CapPassthroughOp:         {Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{}}},
	} {
		_, err := ops.New(&graph.Vertex{Op: message})
		require.Equal(t, err == nil, caps[id], "%s: %v", id, err)
	}

	exporters := newExporters(&image.Store{}, sessions, nil)
	require.True(t, caps[pb.CapExporterImageAnnotations])
	_, err = exporters.Resolve("oci", map[string]string{"annotation-nosuch.key": "x"}, compat.Current)
	require.Error(t, err, "annotations are read")
	require.True(t, caps[pb.CapExporterImageAttestations])
	_, err = exporters.Resolve("image", map[string]string{"attestation-inline": "sometimes"}, compat.Current)
	require.Error(t, err, "attestations are written")
	require.True(t, caps[pb.CapExporterSourceDateEpoch])
	for _, typ := range []string{"image", "oci", "docker", "tar", "local"} {
		_, err := exporters.Resolve(typ, map[string]string{"source-date-epoch": "yesterday"}, compat.Current)
		require.Error(t, err, typ)
	}

	builds := history.Open(t.Context(), history.Config{Dir: t.TempDir()})
	defer func() { require.NoError(t, builds.Close()) }()
	s := solver.New(solver.Config{Worker: w, Sessions: sessions, Exporters: exporters, History: builds})
	require.True(t, caps[pb.CapExporterMultiple])
	_, err = s.Solve(t.Context(), solver.Request{Ref: "b", Exporters: []solver.Exporter{{Type: "image"}, {Type: "floppy"}}})
	require.EqualError(t, err, `exporter "floppy" could not be found`, "the second is looked at too")
}
