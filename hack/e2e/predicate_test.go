package e2e_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The published shapes of predicates, field by field: what is not here must not be in one. They are those
// of https://slsa.dev/spec/v1.0/provenance and https://slsa.dev/spec/v0.2/provenance with BuildKit's
// extensions.
type (
	shapeDigests map[string]string
	shapeSource  struct {
		URI        string       `json:"uri"`
		Digest     shapeDigests `json:"digest"`
		Path       string       `json:"path"`
		EntryPoint string       `json:"entryPoint"`
	}
	shapeMaterial struct {
		URI    string       `json:"uri"`
		Digest shapeDigests `json:"digest"`
	}
	shapeOptional struct {
		ID       string `json:"id"`
		Optional bool   `json:"optional"`
	}
	shapeRequest struct {
		Frontend             string                  `json:"frontend"`
		Args                 map[string]string       `json:"args"`
		Secrets              []shapeOptional         `json:"secrets"`
		SSH                  []shapeOptional         `json:"ssh"`
		Locals               []struct{ Name string } `json:"locals"`
		Inputs               map[string]*shapeOuter  `json:"inputs"`
		Root                 *shapeOuter             `json:"root"`
		CompatibilityVersion int                     `json:"compatibilityVersion"`
	}
	shapeOuter struct {
		ConfigSource shapeSource   `json:"configSource"`
		Request      *shapeRequest `json:"request"`
	}
	shapeConfig struct {
		Steps []struct {
			ID     string   `json:"id"`
			Op     *shapeOp `json:"op"`
			Inputs []string `json:"inputs"`
		} `json:"llbDefinition"`
		Digests map[string]string `json:"digestMapping"`
	}
	// shapeOp is an op as encoding/json writes it.
	shapeOp struct {
		Op          map[string]json.RawMessage
		Platform    *pb.Platform          `json:"platform"`
		Constraints *pb.WorkerConstraints `json:"constraints"`
	}
	shapeMetadata struct {
		VCS    map[string]string `json:"vcs"`
		Source *struct {
			Locations map[string]*pb.Locations `json:"locations"`
			Infos     []struct {
				Filename string `json:"filename"`
				Language string `json:"language"`
				Data     []byte `json:"data"`
				shapeConfig
			} `json:"infos"`
		} `json:"source"`
		Layers map[string][][]ocispec.Descriptor `json:"layers"`
	}
	shapeV1 struct {
		Definition struct {
			BuildType string          `json:"buildType"`
			External  shapeOuter      `json:"externalParameters"`
			Internal  json.RawMessage `json:"internalParameters"`
			Materials []shapeMaterial `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
		Run struct {
			Builder  struct{ ID string } `json:"builder"`
			Metadata struct {
				InvocationID string        `json:"invocationId"`
				Started      time.Time     `json:"startedOn"`
				Finished     time.Time     `json:"finishedOn"`
				BuildKit     shapeMetadata `json:"buildkit_metadata"`
				Hermetic     bool          `json:"buildkit_hermetic"`
				Complete     struct {
					Request      bool `json:"request"`
					Dependencies bool `json:"resolvedDependencies"`
				} `json:"buildkit_completeness"`
				Reproducible bool `json:"buildkit_reproducible"`
			} `json:"metadata"`
		} `json:"runDetails"`
	}
	shapeInternal struct {
		Config            *shapeConfig `json:"buildConfig"`
		Platform          string       `json:"builderPlatform"`
		DockerfileVersion string       `json:"dockerfileVersion"`
	}
	shapeV02 struct {
		Builder    struct{ ID string } `json:"builder"`
		BuildType  string              `json:"buildType"`
		Materials  []shapeMaterial     `json:"materials"`
		Invocation struct {
			ConfigSource shapeSource  `json:"configSource"`
			Parameters   shapeRequest `json:"parameters"`
			Environment  struct {
				Platform          string `json:"platform"`
				DockerfileVersion string `json:"dockerfileVersion"`
			} `json:"environment"`
		} `json:"invocation"`
		Config   *shapeConfig `json:"buildConfig"`
		Metadata struct {
			InvocationID string    `json:"buildInvocationID"`
			Started      time.Time `json:"buildStartedOn"`
			Finished     time.Time `json:"buildFinishedOn"`
			Complete     struct {
				Parameters  bool `json:"parameters"`
				Environment bool `json:"environment"`
				Materials   bool `json:"materials"`
			} `json:"completeness"`
			Reproducible bool          `json:"reproducible"`
			BuildKit     shapeMetadata `json:"https://mobyproject.org/buildkit@v1#metadata"`
			Hermetic     bool          `json:"https://mobyproject.org/buildkit@v1#hermetic"`
		} `json:"metadata"`
	}
)

// requireShape fails the test if a predicate has fields that its shape has not.
func requireShape(t *testing.T, typ string, predicate []byte) {
	t.Helper()
	strict := func(data []byte, v any) {
		t.Helper()
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		require.NoError(t, dec.Decode(v))
	}
	if typ == "https://slsa.dev/provenance/v0.2" {
		strict(predicate, &shapeV02{})
		return
	}
	require.Equal(t, "https://slsa.dev/provenance/v1", typ)
	var p shapeV1
	strict(predicate, &p)
	strict(p.Definition.Internal, &shapeInternal{})
}

// normalised returns a predicate with what differs from run to run replaced: digests by their order,
// times and the name of the build by their kind, hosts by their role.
func normalised(t *testing.T, predicate []byte, hosts map[string]string) string {
	t.Helper()
	text := string(predicate)
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		escaped := strings.Replace(host, ":", "%3A", 1)
		text = strings.NewReplacer(host, hosts[host], escaped, hosts[host]).Replace(text)
	}
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	withoutKey(v, "digestMapping")
	n := &normaliser{digests: map[string]string{}}
	out, err := json.MarshalIndent(n.value("", v), "", " ")
	require.NoError(t, err)
	return string(out) + "\n"
}

// requireGolden fails the test if a predicate is not the known one.
func requireGolden(t *testing.T, file, predicate string) {
	t.Helper()
	golden := filepath.Join("testdata", "predicates", file+".json")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(predicate), 0o644))
	}
	require.Equal(t, read(t, golden), predicate)
}

type normaliser struct{ digests map[string]string }

var hexDigest = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{40}`)

func (n *normaliser) value(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			v[k] = n.value(k, v[k])
		}
	case []any:
		for i := range v {
			v[i] = n.value(key, v[i])
		}
	case string:
		switch key {
		case "invocationId", "buildInvocationID", "startedOn", "finishedOn", "buildStartedOn", "buildFinishedOn":
			return "<" + key + ">"
		}
		return hexDigest.ReplaceAllStringFunc(v, func(d string) string {
			if n.digests[d] == "" {
				n.digests[d] = fmt.Sprintf("<digest %d>", len(n.digests)+1)
			}
			return n.digests[d]
		})
	case float64:
		if key == "size" {
			return "<size>"
		}
	}
	return v
}

// One build with sources of every kind has the predicates that it had.
func TestPredicatesOfABuildWithAllSources(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	repo, _ := repository(t, map[string]string{"sub/in.txt": "in"}, nil)
	web := httptest.NewServer(http.FileServer(http.Dir(tree(t, map[string]string{"page.txt": "page"}))))
	defer web.Close()
	hosts := map[string]string{
		registry.Host: "registry.example", strings.TrimPrefix(web.URL, "http://"): "web.example",
		strings.TrimSuffix(strings.TrimPrefix(repo, "http://"), "/r.git"): "git.example",
	}
	dir := tree(t, map[string]string{
		"Dockerfile": "ARG WEB\nARG REPO\nFROM busybox AS tools\nARG LEVEL=1\nRUN --mount=type=secret,id=s --network=none echo $LEVEL >/level\n" +
			"FROM busybox\nARG WEB\nARG REPO\nADD ${WEB}/page.txt /page.txt\nADD ${REPO}#main:sub /repo\n" +
			"COPY --from=tools /level /level\nRUN --mount=type=ssh touch /made\nCOPY file /file\n",
		"file": "contents\n",
	})
	name := registry.Host + "/out/all:1"
	build := func(attest string) statement {
		t.Helper()
		d.Build(t, dir, "--opt=attest:provenance="+attest+",builder-id=https://builder.example/1", "--opt=build-arg:SOURCE_DATE_EPOCH=1767225600",
			"--opt=build-arg:LEVEL=2", "--opt=label:l=m", "--opt=vcs:source=https://user:sesame@git.example/r.git", "--opt=vcs:revision=main",
			"--opt=build-arg:WEB="+web.URL, "--opt=build-arg:REPO="+repo,
			"--output=type=image,name="+name+",push=true,rewrite-timestamp=true")
		image, all := attested(t, pulledIndex(t, name), "linux/amd64")
		require.Len(t, all, 1)
		// What most who verify parse with.
		whole, err := json.Marshal(all[0])
		require.NoError(t, err)
		var header intoto.StatementHeader //nolint:staticcheck // see above
		if strings.HasSuffix(all[0].PredicateType, "/v0.2") {
			var parsed intoto.ProvenanceStatementSLSA02
			require.NoError(t, json.Unmarshal(whole, &parsed))
			require.Len(t, parsed.Predicate.Materials, 3)
			header = parsed.StatementHeader
		} else {
			var parsed intoto.ProvenanceStatementSLSA1 //nolint:staticcheck // see above
			require.NoError(t, json.Unmarshal(whole, &parsed))
			require.Len(t, parsed.Predicate.BuildDefinition.ResolvedDependencies, 3)
			header = parsed.StatementHeader
		}
		require.Equal(t, image.Hex, header.Subject[0].Digest["sha256"])
		require.Equal(t, "https://in-toto.io/Statement/v1", header.Type)
		return all[0]
	}
	for file, attest := range map[string]string{
		"v1-max": "mode=max,reproducible=true", "v1-min": "mode=min", "v02-max": "version=v0.2,mode=max", "v02-min": "version=v0.2,mode=min",
	} {
		t.Run(file, func(t *testing.T) {
			s := build(attest)
			requireShape(t, s.PredicateType, s.Predicate)
			require.NotContains(t, string(s.Predicate), "sesame")
			requireGolden(t, file, normalised(t, s.Predicate, hosts))
		})
	}
	t.Run("again, without a cache", func(t *testing.T) {
		stable := func(s statement) any {
			var v any
			require.NoError(t, json.Unmarshal(s.Predicate, &v))
			for _, key := range []string{"invocationId", "startedOn", "finishedOn", "digestMapping"} {
				withoutKey(v, key)
			}
			return v
		}
		first := build("mode=max,reproducible=true")
		d.MustBuildctl(t, "prune", "--all")
		again := build("mode=max,reproducible=true")
		require.Equal(t, stable(first), stable(again))
		require.Equal(t, first.Subject, again.Subject, "the image is the same")
	})
}
