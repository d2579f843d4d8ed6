package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// listing is a scanner that lists the files of each tree, one level deep, and shows what it was given.
const listing = `#!/bin/sh
set -e
env | grep BUILDKIT_SCAN_ | sort >&2
touch /tmp/scratch
if touch $BUILDKIT_SCAN_SOURCE/x 2>/dev/null; then echo "the result is writable" >&2; exit 1; fi
for dir in $BUILDKIT_SCAN_SOURCE ${BUILDKIT_SCAN_SOURCE_EXTRAS:+$BUILDKIT_SCAN_SOURCE_EXTRAS*}; do
	files=$(cd $dir && echo *)
	echo "{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"subject\":null,\"predicate\":{\"files\":\"$files\"}}" \
		> $BUILDKIT_SCAN_DESTINATION/$(basename $dir).spdx.json
done
`

// pushScanner builds the image of a scanner from a script and pushes it.
func pushScanner(t *testing.T, d *harness.Daemon, registry *harness.Registry) string {
	t.Helper()
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/scan\"]\n",
		"scan":       listing,
	})
	name := registry.Host + "/scanner:1"
	d.Build(t, dir, "--output=type=image,name="+name+",push=true")
	return name
}

// listed returns what the listing scanner said of each tree, in order.
func listed(t *testing.T, all []statement) (files []string) {
	t.Helper()
	for _, s := range all {
		require.Equal(t, "https://spdx.dev/Document", s.PredicateType)
		require.Len(t, s.Subject, 1)
		var p struct{ Files string }
		require.NoError(t, json.Unmarshal(s.Predicate, &p))
		files = append(files, p.Files)
	}
	return files
}

func TestAScannerOfTheUsersChoiceDescribesResultStagesAndContext(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	scanner := pushScanner(t, d, registry)
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox AS build\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY a /made\n" +
			"FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY --from=build /made /\n",
		"a": "contents\n",
	})
	name := registry.Host + "/out/sbom:1"
	r := d.Build(t, dir, "--opt=attest:sbom=generator="+scanner+",depth=1", "--output=type=image,name="+name+",push=true")
	require.Contains(t, r.Stderr, "[linux/amd64] generating sbom using "+scanner)
	require.Contains(t, r.Stderr, "BUILDKIT_SCAN_depth=1")
	image, all := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Equal(t, image.Hex, all[0].Subject[0].Digest["sha256"])
	files := listed(t, all)
	require.Len(t, files, 3)
	require.Equal(t, "Dockerfile a", files[1], "the context")
	require.Contains(t, files[0], " made ", "the stage")
	require.Equal(t, "made", files[2], "the result")
	require.Contains(t, d.Build(t, dir, "--opt=attest:sbom=generator="+scanner+",depth=1").Cached(), "[linux/amd64] generating sbom using "+scanner)
}

func TestTheResultOfADefinitionIsScannedToo(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	scanner := pushScanner(t, d, registry)
	def, err := llb.Scratch().File(llb.Mkfile("/only", 0o644, nil)).Marshal(t.Context())
	require.NoError(t, err)
	data, err := proto.Marshal(def)
	require.NoError(t, err)
	name := registry.Host + "/out/definition:1"
	cmd := d.Command(t.Context(), "build", "--progress=plain", "--opt=attest:sbom=generator="+scanner, "--output=type=image,name="+name+",push=true")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	_, all := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Equal(t, []string{"only"}, listed(t, all))
}

func TestScannersThatCannotRunEndTheBuild(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM busybox", "RUN touch /made")
	for generator, want := range map[string]string{
		"":       "error: failed to solve: sbom generator cannot be empty\n",
		"A B":    "failed to parse sbom generator A B: invalid reference format",
		"empty":  "scanner docker.io/library/empty:latest does not have cmd",
		"absent": "docker.io/library/absent:latest",
	} {
		r := d.BuildctlIn(t, dir, "build", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=.", "--opt=attest:sbom=generator="+generator)
		require.NotZero(t, r.Code, generator)
		require.Contains(t, r.Stderr, want)
	}
}

func TestTheProjectsScannerScansItself(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY sbom-scanner /bin/\nENTRYPOINT [\"/bin/sbom-scanner\"]\n"})
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", dir+"/", "./cmd/sbom-scanner")
	build.Dir = harness.Root(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	scanner, name := registry.Host+"/sbom-scanner:1", registry.Host+"/out/self:1"
	d.Build(t, dir, "--output=type=image,name="+scanner+",push=true")
	d.Build(t, dir, "--opt=attest:sbom=generator="+scanner+",SOURCE_DATE_EPOCH=0", "--output=type=image,name="+name+",push=true")
	image, all := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Len(t, all, 1)
	require.Equal(t, "https://spdx.dev/Document", all[0].PredicateType)
	require.Equal(t, image.Hex, all[0].Subject[0].Digest["sha256"])
	doc, err := spdxjson.Read(bytes.NewReader(all[0].Predicate))
	require.NoError(t, err)
	require.Equal(t, "1970-01-01T00:00:00Z", doc.CreationInfo.Created)
	versions := map[string]string{}
	for _, p := range doc.Packages {
		versions[p.PackageName] = p.PackageVersion
	}
	require.Contains(t, versions, "stdlib")
	require.Contains(t, versions, "github.com/openbuildkit/buildkit")
	require.NotEmpty(t, versions["github.com/spdx/tools-golang"])
	require.Len(t, doc.Files, 1)
	require.Equal(t, "/bin/sbom-scanner", doc.Files[0].FileName)
	pushed, err := pulledIndex(t, name).Image(image)
	require.NoError(t, err)
	manifest, err := pushed.Manifest()
	require.NoError(t, err)
	require.Equal(t, "layerID: "+manifest.Layers[0].Digest.String(), doc.Files[0].FileComment)
	require.Len(t, doc.CreationInfo.Creators, 2)
	require.Contains(t, doc.CreationInfo.Creators[1].Creator, "buildkit-v")
}
