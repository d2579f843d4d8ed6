package client_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/client"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
)

func TestAnOCILayoutIsWrittenAndTagged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	build := func(blob, names string) {
		t.Helper()
		d := newDaemon()
		d.solve = func(ctx context.Context, req *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
			caller, err := d.sessions.Get(ctx, req.Session)
			if err != nil {
				return nil, err
			}
			desc := ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(blob), Size: int64(len(blob)),
				Annotations: map[string]string{"k": "v"},
			}
			store := sessioncontent.NewStore(caller, "export")
			if err := content.WriteBlob(ctx, store, "ref", bytes.NewReader([]byte(blob)), desc); err != nil {
				return nil, err
			}
			dt, err := json.Marshal(desc)
			return &controlpb.SolveResponse{ExporterResponse: map[string]string{
				"containerimage.descriptor": base64.StdEncoding.EncodeToString(dt), "image.name": names,
			}}, err
		}
		_, err := d.start(t).Solve(t.Context(), nil, client.SolveOpt{
			Frontend: "f",
			Exports:  []client.Export{{Type: "oci", Attrs: map[string]string{"tar": "false"}, OutputDir: dir}},
		})
		require.NoError(t, err)
	}
	index := func() (rows []string) {
		dt, err := os.ReadFile(filepath.Join(dir, "index.json"))
		require.NoError(t, err)
		var idx ocispec.Index
		require.NoError(t, json.Unmarshal(dt, &idx))
		require.Equal(t, 2, idx.SchemaVersion)
		require.Equal(t, ocispec.MediaTypeImageIndex, idx.MediaType)
		for _, m := range idx.Manifests {
			require.Equal(t, "v", m.Annotations["k"])
			data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", m.Digest.Encoded()))
			require.NoError(t, err)
			rows = append(rows, string(data)+" "+m.Annotations["io.containerd.image.name"]+" "+m.Annotations["org.opencontainers.image.ref.name"])
		}
		return rows
	}

	build("one", "")
	require.Equal(t, []string{"one  latest"}, index())
	layout, err := os.ReadFile(filepath.Join(dir, "oci-layout"))
	require.NoError(t, err)
	require.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, string(layout))

	build("two", "a,example.org/b:1")
	require.Equal(t, []string{"one  latest", "two docker.io/library/a:latest latest", "two example.org/b:1 1"}, index())

	build("three", "a")
	build("four", "")
	require.Equal(t, []string{"two example.org/b:1 1", "three docker.io/library/a:latest latest", "four  latest"}, index())
}
