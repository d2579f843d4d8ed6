package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	slsa1 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// statement is an in-toto statement with what its subjects are.
type statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate json.RawMessage `json:"predicate"`
}

// attested returns the statements about the image of a platform in an index.
func attested(t *testing.T, index v1.ImageIndex, platform string) (image v1.Hash, all []statement) {
	t.Helper()
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	for _, m := range manifest.Manifests {
		if m.Platform.String() == platform {
			image = m.Digest
		}
	}
	require.NotEmpty(t, image.Hex, "the index has no image for %s", platform)
	for _, m := range manifest.Manifests {
		if m.Annotations["vnd.docker.reference.digest"] != image.String() {
			continue
		}
		about, err := index.Image(m.Digest)
		require.NoError(t, err)
		layers, err := about.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			r, err := l.Compressed()
			require.NoError(t, err)
			var s statement
			require.NoError(t, json.NewDecoder(r).Decode(&s))
			require.NoError(t, r.Close())
			all = append(all, s)
		}
	}
	return image, all
}

// withoutKey removes a key wherever it is.
func withoutKey(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, key)
		for _, x := range v {
			withoutKey(x, key)
		}
	case []any:
		for _, x := range v {
			withoutKey(x, key)
		}
	}
	return v
}

func TestProvenanceIsPushedWithTheImage(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox AS base\nCOPY file /\nRUN --mount=type=secret,id=s true\nFROM base\nRUN touch /made\n",
		"file":       "contents\n",
	})
	name := registry.Host + "/out/a:1"
	volatile := func() map[string]any {
		d.Build(t, dir, "--opt=attest:provenance=reproducible=true", "--opt=build-arg:SOURCE_DATE_EPOCH=1700000000", "--opt=label:l=m",
			"--output=type=image,name="+name+",push=true")
		image, all := attested(t, pulledIndex(t, name), "linux/amd64")
		require.Len(t, all, 1)
		require.Equal(t, "https://slsa.dev/provenance/v1", all[0].PredicateType)
		require.Len(t, all[0].Subject, 1)
		require.Equal(t, "pkg:docker/"+strings.Replace(registry.Host, ":", "%3A", 1)+"/out/a@1?platform=linux%2Famd64", all[0].Subject[0].Name)
		require.Equal(t, image.Hex, all[0].Subject[0].Digest["sha256"])
		var p slsa1.ProvenancePredicate //nolint:staticcheck // what most who verify parse with
		require.NoError(t, json.Unmarshal(all[0].Predicate, &p))
		require.Len(t, p.BuildDefinition.ResolvedDependencies, 1)
		require.Contains(t, p.BuildDefinition.ResolvedDependencies[0].URI, "pkg:docker/busybox@latest?platform=linux%2Famd64")
		require.NotEmpty(t, p.RunDetails.BuildMetadata.InvocationID)
		require.NotNil(t, p.RunDetails.BuildMetadata.FinishedOn)
		var fields map[string]map[string]any
		require.NoError(t, json.Unmarshal(all[0].Predicate, &fields))
		meta := fields["runDetails"]["metadata"].(map[string]any)
		layers := meta["buildkit_metadata"].(map[string]any)["layers"].(map[string]any)
		require.Len(t, layers, 4, "every step is in the image")
		for _, k := range []string{"invocationId", "startedOn", "finishedOn"} {
			delete(meta, k)
		}
		// Digests of vertices tell one session's folders from another's.
		return withoutKey(map[string]any{"definition": fields["buildDefinition"], "run": fields["runDetails"]}, "digestMapping").(map[string]any)
	}
	first := volatile()
	require.Equal(t, first, volatile(), "from the cache too")
}

// Of a build from a repository all but its name and its times is the same, whichever daemon it ran on and
// whatever that had in its cache.
func TestTheSameBuildFromARepositoryHasTheSameProvenance(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	repo, _ := repository(t, map[string]string{
		"Dockerfile": "FROM busybox AS tools\nRUN --network=none echo tool >/tool\nFROM busybox\nCOPY file /\nCOPY --from=tools /tool /\n", "file": "contents\n",
	}, nil)
	name := registry.Host + "/out/same:1"
	for version, volatile := range map[string][]string{
		"v1": {"invocationId", "startedOn", "finishedOn"}, "v0.2": {"buildInvocationID", "buildStartedOn", "buildFinishedOn"},
	} {
		t.Run(version, func(t *testing.T) {
			var first any
			for range 2 {
				d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
				for range 2 {
					d.MustBuildctl(t, "build", "--frontend=dockerfile.v0", "--opt=context="+repo+"#main", "--opt=attest:provenance=reproducible=true,version="+version,
						"--opt=build-arg:SOURCE_DATE_EPOCH=1767225600", "--output=type=image,push=true,rewrite-timestamp=true,name="+name)
					_, all := attested(t, pulledIndex(t, name), "linux/amd64")
					require.Len(t, all, 1)
					require.Contains(t, string(all[0].Predicate), `hermetic":true`)
					require.Contains(t, string(all[0].Predicate), `eproducible":true`)
					var p any
					require.NoError(t, json.Unmarshal(all[0].Predicate, &p))
					for _, key := range volatile {
						require.Contains(t, string(all[0].Predicate), `"`+key+`":`)
						withoutKey(p, key)
					}
					told := []any{all[0].Subject, p}
					if first == nil {
						first = told
					}
					require.Equal(t, first, told)
				}
			}
		})
	}
}

func TestProvenanceOfPlatformsKeepsThemApart(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	registry.PushPlatforms(t)
	dir := tree(t, map[string]string{"Dockerfile": "FROM platforms\nCOPY Dockerfile /\n"})
	name := registry.Host + "/out/b:1"
	d.Build(t, dir, "--opt=attest:provenance=mode=min", "--opt=platform=linux/amd64,linux/arm64", "--output=type=image,name="+name+",push=true")
	index := pulledIndex(t, name)
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		_, all := attested(t, index, platform)
		require.Len(t, all, 1)
		var p slsa1.ProvenancePredicate //nolint:staticcheck // what most who verify parse with
		require.NoError(t, json.Unmarshal(all[0].Predicate, &p))
		require.Len(t, p.BuildDefinition.ResolvedDependencies, 1)
		require.Contains(t, p.BuildDefinition.ResolvedDependencies[0].URI, strings.ReplaceAll(platform, "/", "%2F"))
	}
}

func TestMaterialsThatAreToBeKnownAre(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := d.BuildctlIn(t, dir, "build", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=.", "--opt=attest:provenance=complete-materials=true")
	require.NotZero(t, r.Code)
	require.Contains(t, r.Stderr, "provenance materials are incomplete: local_source context, local_source dockerfile")
	for attest, want := range map[string]string{
		"provenance=mode=most": `invalid mode "most"`, "magic=": `unknown attestation type "magic"`,
	} {
		r := d.BuildctlIn(t, dir, "build", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=.", "--opt=attest:"+attest)
		require.NotZero(t, r.Code)
		require.Contains(t, r.Stderr, want)
		require.NotContains(t, r.Stderr, "load build definition", "before anything is done")
	}
	for attest, unknown := range map[string]string{"mod=min,mode=min": "mod", "yess": "yess"} {
		r := d.Build(t, dir, "--progress=rawjson", "--opt=attest:provenance="+attest, toLocal(t.TempDir()))
		require.Equal(t, []string{`exporting to client directory: Attribute "` + unknown + `" of provenance is not known and has no effect`}, warnings(t, r))
	}
}
