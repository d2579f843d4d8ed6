package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	buildkit "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestAClientChoosesExportersWhenTheBuildIsDone(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{})
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	definition := marshal(t, llb.Scratch().File(llb.Mkfile("/made", 0o644, []byte("made"))))
	build := func(opt buildkit.SolveOpt) (*buildkit.SolveResponse, error) {
		return c.Build(t.Context(), opt, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			res, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition})
			if err == nil {
				res.SetMeta("kind", []byte("release"))
			}
			return res, err
		})
	}
	dir := t.TempDir()
	tarball := func(name string) func(map[string]string) (io.WriteCloser, error) {
		return func(map[string]string) (io.WriteCloser, error) { return os.Create(filepath.Join(dir, name)) }
	}
	t.Run("besides those of the request", func(t *testing.T) {
		var seen buildkit.Finished
		resp, err := build(buildkit.SolveOpt{
			Exports: []buildkit.Export{{Type: buildkit.ExporterTar, Output: tarball("first.tar")}},
			ChooseExports: func(_ context.Context, f buildkit.Finished) ([]buildkit.Export, error) {
				seen = f
				return []buildkit.Export{
					{Type: buildkit.ExporterLocal, OutputDir: filepath.Join(dir, "late")},
					{Type: buildkit.ExporterOCI, Attrs: map[string]string{"name": "example.com/late"}, Output: tarball("late.tar")},
				}, nil
			},
		})
		require.NoError(t, err)
		require.Equal(t, "release", string(seen.Metadata["kind"]))
		require.Len(t, seen.Refs, 1)
		require.Equal(t, "made", read(t, dir, "late", "made"))
		require.FileExists(t, filepath.Join(dir, "first.tar"))
		require.FileExists(t, filepath.Join(dir, "late.tar"))
		require.Contains(t, resp.ExporterResponse, "containerimage.digest")
	})
	layout := func(name string) buildkit.Export {
		return buildkit.Export{
			Type: buildkit.ExporterOCI, OutputDir: filepath.Join(dir, name),
			Attrs: map[string]string{"tar": "false", "name": "example.com/" + name},
		}
	}
	choose := func(exports ...buildkit.Export) func(context.Context, buildkit.Finished) ([]buildkit.Export, error) {
		return func(context.Context, buildkit.Finished) ([]buildkit.Export, error) { return exports, nil }
	}
	t.Run("an OCI layout", func(t *testing.T) {
		_, err := build(buildkit.SolveOpt{
			Exports: []buildkit.Export{{Type: buildkit.ExporterTar, Output: tarball("beside.tar")}},
			ChooseExports: choose(layout("chosen"), buildkit.Export{
				Type: buildkit.ExporterOCI, Output: tarball("other.tar"), Attrs: map[string]string{"compression": "zstd"},
			}),
		})
		require.NoError(t, err)
		var index ocispec.Index
		require.NoError(t, json.Unmarshal([]byte(read(t, dir, "chosen", "index.json")), &index))
		require.Equal(t, "latest", index.Manifests[0].Annotations[ocispec.AnnotationRefName])
		require.FileExists(t, filepath.Join(dir, "chosen", "blobs", "sha256", index.Manifests[0].Digest.Encoded()))
	})
	t.Run("one OCI layout at most", func(t *testing.T) {
		_, err := build(buildkit.SolveOpt{Exports: []buildkit.Export{layout("one")}, ChooseExports: choose(layout("two"))})
		require.ErrorContains(t, err, "only one exporter can write an OCI layout")
	})
	t.Run("not what would hide the name of a layout of the request", func(t *testing.T) {
		_, err := build(buildkit.SolveOpt{Exports: []buildkit.Export{layout("hidden")}, ChooseExports: choose(buildkit.Export{
			Type: buildkit.ExporterOCI, Output: tarball("hides.tar"), Attrs: map[string]string{"compression": "zstd"},
		})})
		require.ErrorContains(t, err, "hidden gets no name: what the daemon tells of is another one")
	})
	for text, opt := range map[string]buildkit.SolveOpt{
		"exporters that the client adds: not today": {ChooseExports: func(context.Context, buildkit.Finished) ([]buildkit.Export, error) {
			return nil, errors.New("not today")
		}},
		`exporter "paper" could not be found`: {ChooseExports: func(context.Context, buildkit.Finished) ([]buildkit.Export, error) {
			return []buildkit.Export{{Type: "paper"}}, nil
		}},
		"output directory is required for local exporter": {ChooseExports: func(context.Context, buildkit.Finished) ([]buildkit.Export, error) {
			return []buildkit.Export{{Type: buildkit.ExporterLocal}}, nil
		}},
	} {
		_, err := build(opt)
		require.ErrorContains(t, err, text)
	}
	// A session that chooses nothing is none of the daemon's business.
	_, err = build(buildkit.SolveOpt{SessionExporter: true})
	require.NoError(t, err)
}
