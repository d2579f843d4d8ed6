package ocilayout

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
)

// A store that sends something else is passed over for that of another client, which it does not
// share the blame with.
func TestAStoreOfAnotherClientServesWhereOneSendsOtherBytes(t *testing.T) {
	img := imageOf(t, "linux/amd64", "a file in a layer")
	layers, err := img.Layers()
	require.NoError(t, err)
	h, err := layers[0].Digest()
	require.NoError(t, err)
	layer := digest.Digest(h.String())
	for name, tc := range map[string]struct {
		of    func(index digest.Digest) digest.Digest
		spoil func(data []byte) []byte
		want  string
	}{
		"of the index":       {func(d digest.Digest) digest.Digest { return d }, func([]byte) []byte { return []byte("{}") }, "the client sends sha256:"},
		"of a layer":         {func(digest.Digest) digest.Digest { return layer }, func(b []byte) []byte { b[len(b)/2]++; return b }, "bytes do not match the digest"},
		"less of a layer":    {func(digest.Digest) digest.Digest { return layer }, func(b []byte) []byte { return b[:len(b)/2] }, "unexpected EOF"},
		"nothing of a layer": {func(digest.Digest) digest.Digest { return layer }, func([]byte) []byte { return nil }, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			dir, dgsts := write(t, img)
			good := b.client("lay", dir)
			spoiled, _ := write(t, img)
			file := filepath.Join(spoiled, "blobs", "sha256", tc.of(dgsts[0]).Encoded())
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, tc.spoil(data), 0o600))
			bad := b.client("lay", spoiled)

			attrs := map[string]string{pb.AttrOCIStore: "lay"}
			try := func(ids ...string) ([]string, error) {
				_, tree, blobs, err := b.pull("name@"+dgsts[0].String(), attrs, ids...)
				if err != nil {
					return nil, err
				}
				defer func() { require.NoError(t, tree.Release(t.Context())) }()
				if err := tree.Realise(t.Context(), cache.Access{Blobs: blobs}); err != nil {
					return nil, err
				}
				return b.names(tree, blobs), nil
			}
			_, err = try(bad)
			require.ErrorContains(t, err, tc.want)
			faults := session.Faults(err)
			require.Len(t, faults, 1)
			require.Equal(t, bad, faults[0].ID)

			names, err := try(bad, good)
			require.NoError(t, err)
			require.Equal(t, []string{"a file in a layer"}, names)

			_, err = try(bad)
			require.Error(t, err, "that it is here now is nothing to who has other bytes")
			require.Equal(t, bad, session.Faults(err)[0].ID)
		})
	}
}
