//go:build linux

package attest_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/exporter/attest"
)

func TestACoreBillOfMaterialsIsSupplemented(t *testing.T) {
	layer := digest.FromString("layer")
	layersOf := func(files map[string]bool) (map[string]digest.Digest, error) {
		require.Equal(t, map[string]bool{"/a": true, "/b": true, "/absent": true}, files)
		return map[string]digest.Digest{"/a": layer, "/b": layer}, nil
	}
	p := attest.Predicate{Body: json.RawMessage(`{"spdxVersion":"SPDX-2.3","more":1.50,"creationInfo":{"created":"x","creators":["Tool: s"]},` +
		`"files":[{"fileName":"a","x":1},{"fileName":"./b","comment":""},{"fileName":"/c","comment":"own"},{"fileName":"/absent"},{"SPDXID":"y"}]}`)}
	require.NoError(t, p.Supplement("buildkit-v1", layersOf))
	id := `"layerID: ` + layer.String() + `"`
	require.Equal(t, `{"creationInfo":{"created":"x","creators":["Tool: s","Tool: buildkit-v1"]},"files":[{"comment":`+id+`,"fileName":"a","x":1},`+
		`{"comment":`+id+`,"fileName":"./b"},{"comment":"own","fileName":"/c"},{"fileName":"/absent"},{"SPDXID":"y"}],"more":1.50,"spdxVersion":"SPDX-2.3"}`, string(p.Body))

	require.EqualError(t, p.Supplement("x", func(map[string]bool) (map[string]digest.Digest, error) { return nil, errors.New("no layer") }), "no layer")
}

func TestOtherDocumentsAreLeftAsTheyAre(t *testing.T) {
	never := func(map[string]bool) (map[string]digest.Digest, error) { return nil, errors.New("not to be called") }
	for _, body := range []string{`{}`, `{"spdxVersion":"SPDX-3.0","files":[{"fileName":"a"}]}`, `{"spdxVersion":2}`, `{"spdxVersion":"SPDX-2.3"}`, `{"creationInfo":{"creators":"x"},"files":{},"spdxVersion":"SPDX-2.2"}`} {
		p := attest.Predicate{Body: json.RawMessage(body)}
		require.NoError(t, p.Supplement("x", never))
		require.Equal(t, body, string(p.Body))
	}
}

func TestOneDocumentIsTheCore(t *testing.T) {
	core := attest.Predicate{Name: "sbom.spdx.json", Type: attest.PredicateSPDX, Metadata: map[string][]byte{"reason": []byte("sbom"), "sbom-core": []byte("sbom")}}
	require.True(t, core.IsCore())
	for _, change := range []func(*attest.Predicate){
		func(p *attest.Predicate) { p.Name = "sbom-build.spdx.json" },
		func(p *attest.Predicate) { p.Type = "x" },
		func(p *attest.Predicate) { p.Metadata = nil },
	} {
		p := core
		change(&p)
		require.False(t, p.IsCore())
	}
}

func FuzzSupplement(f *testing.F) {
	f.Add([]byte(`{"spdxVersion":"SPDX-2.3","creationInfo":{"creators":[]},"files":[{"fileName":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := attest.Predicate{Body: data}
		err := p.Supplement("x", func(map[string]bool) (map[string]digest.Digest, error) {
			return map[string]digest.Digest{"/a": "sha256:0"}, nil
		})
		if err == nil && json.Valid(data) && !json.Valid(p.Body) {
			t.Errorf("not JSON: %s", p.Body)
		}
	})
}
