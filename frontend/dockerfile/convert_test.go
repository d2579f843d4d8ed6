package dockerfile_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

// The graph of a Dockerfile is returned instead of solved: every op under its digest, what is known
// of it besides, and where in the file it comes from.
func TestAGraphIsConvertedToJSON(t *testing.T) {
	d := newDaemon("FROM busybox\nWORKDIR /w\nRUN make\n", map[string]string{"requestid": "frontend.convertllb"})
	res, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Empty(t, d.solved)
	require.Equal(t, "0.1.0", string(res.Metadata["version"]))
	var out struct {
		Def map[string]struct {
			Inputs []struct{ Digest string }
		}
		Metadata map[string]json.RawMessage
		Source   struct {
			Locations map[string]struct {
				Locations []struct {
					Ranges []struct{ Start struct{ Line int } }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(res.Metadata["result.json"], &out))
	require.Len(t, out.Def, 4, "an image, a folder, a process and the end")
	lines := map[int]bool{}
	for dgst, op := range out.Def {
		for _, in := range op.Inputs {
			require.Contains(t, out.Def, in.Digest)
		}
		require.Contains(t, out.Metadata, dgst)
		for _, l := range out.Source.Locations[dgst].Locations {
			lines[l.Ranges[0].Start.Line] = true
		}
	}
	require.Equal(t, map[int]bool{1: true, 2: true, 3: true}, lines)
}
