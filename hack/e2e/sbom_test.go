package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

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

// pushScanner builds the image of the listing scanner and pushes it.
func pushScanner(t *testing.T, d *harness.Daemon, registry *harness.Registry) string {
	t.Helper()
	return pushScript(t, d, registry, "scanner:1", listing)
}

// pushScript builds the image of a scanner from a script and pushes it.
func pushScript(t *testing.T, d *harness.Daemon, registry *harness.Registry, name, script string) string {
	t.Helper()
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/scan\"]\n",
		"scan":       script,
	})
	name = registry.Host + "/" + name
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

// misbehaving is a scanner that does what its parameter says.
const misbehaving = `#!/bin/sh
statement() { echo "{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"$1\",\"subject\":null,\"predicate\":$2}"; }
out=$BUILDKIT_SCAN_DESTINATION
case $BUILDKIT_SCAN_do in
fail) echo "the scanner is broken" >&2; exit 3;;
hang) echo "it hangs" >&2; sleep 1000;;
garbage) head -c 5000 /dev/urandom >$out/sbom.spdx.json;;
text) echo "no json" >$out/sbom.spdx.json;;
type) statement https://example.org/other '{}' >$out/sbom.spdx.json;;
provenance) statement https://slsa.dev/provenance/v1 '{}' >$out/sbom.spdx.json;;
list) statement https://spdx.dev/Document '[]' >$out/sbom.spdx.json;;
large) statement https://spdx.dev/Document '{}' >$out/sbom.spdx.json; truncate -s 41M $out/sbom.spdx.json;;
many) for i in $(seq 1001); do echo {} >$out/$i.json; done;;
folder) mkdir $out/sbom;;
link) ln -s /etc/passwd $out/sbom.spdx.json;;
nothing) ;;
pipe) mkfifo $out/sbom.spdx.json;;
several) for n in sbom other third; do statement https://spdx.dev/Document "{\"name\":\"$n\"}" >$out/$n.spdx.json; done;;
esac
`

// What a scanner writes may be anything.
func TestScannersThatMisbehaveEndTheBuild(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	scanner := pushScript(t, d, registry, "misbehaving:1", misbehaving)
	dir := dockerfile(t, "FROM scratch", "COPY Dockerfile /")
	name := registry.Host + "/out/misbehaving:1"
	request := func(do string) []string {
		return []string{"--opt=attest:sbom=generator=" + scanner + ",do=" + do, "--output=type=image,name=" + name + ",push=true"}
	}
	for do, want := range map[string]string{
		"fail":       `process "/scan" did not complete successfully: exit code: 3`,
		"garbage":    `attestation "/sbom.spdx.json" is no in-toto statement`,
		"text":       `attestation "/sbom.spdx.json" is no in-toto statement`,
		"type":       `bundle entry "/sbom.spdx.json" does not match required predicate type https://spdx.dev/Document: it has https://example.org/other`,
		"provenance": `does not match required predicate type https://spdx.dev/Document`,
		"list":       `predicate of attestation "/sbom.spdx.json" is no JSON object`,
		"large":      `attestation "/sbom.spdx.json" is larger than 41943040 bytes`,
		"many":       `has more than 1000 files`,
		"folder":     `attestation "/sbom" is not a regular file`,
		"link":       `attestation "/sbom.spdx.json" is not a regular file`,
		"pipe":       `attestation "/sbom.spdx.json" is not a regular file`,
	} {
		r := d.Buildctl(t, harness.DockerfileArgs(dir, request(do)...)...)
		require.NotZero(t, r.Code, do)
		require.Contains(t, strings.ReplaceAll(r.Stderr, `"sbom`, `"/sbom`), want, do)
	}
	hanging := launchBuild(t, d, dir, request("hang")...)
	hanging.await(t, "it hangs")
	hanging.signal(t, os.Interrupt.(syscall.Signal))
	require.NotZero(t, hanging.waitWithin(t, 30*time.Second).Code)
	d.RequireIdle(t)

	r := d.Build(t, dir, request("nothing")...)
	require.Contains(t, r.Stderr, "nothing is attached as https://spdx.dev/Document: the scanner or frontend has written no statement")
	_, none := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Empty(t, none)

	d.Build(t, dir, request("several")...)
	image, all := attested(t, pulledIndex(t, name), "linux/amd64")
	require.Len(t, all, 3, "in the order of their names")
	for i, want := range []string{"other", "sbom", "third"} {
		require.JSONEq(t, `{"name":"`+want+`"}`, string(all[i].Predicate))
		require.Equal(t, image.Hex, all[i].Subject[0].Digest["sha256"])
	}
}

// A scan that the daemon adds is no part of how the result was made; one that the frontend has made is.
func TestProvenanceTellsOfScansOfFrontendsOnly(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	scanner := pushScanner(t, d, registry)
	name := registry.Host + "/out/scanned:1"
	provenanceOf := func() string {
		_, all := attested(t, pulledIndex(t, name), "linux/amd64")
		require.Len(t, all, 2)
		require.Equal(t, "https://slsa.dev/provenance/v1", all[1].PredicateType)
		return string(all[1].Predicate)
	}
	args := []string{"--opt=attest:sbom=generator=" + scanner, "--opt=attest:provenance=", "--output=type=image,name=" + name + ",push=true"}
	requireSolved(t, solve(t, d, marshal(t, llb.Scratch().File(llb.Mkfile("/only", 0o644, nil))), args...))
	told := provenanceOf()
	require.NotContains(t, told, "scanner")
	require.NotContains(t, told, "BUILDKIT_SCAN_")
	require.Contains(t, told, `"buildkit_hermetic":true`)

	d.Build(t, dockerfile(t, "FROM scratch", "COPY Dockerfile /"), args...)
	told = provenanceOf()
	require.Contains(t, told, "/scanner@1?platform=linux%2Famd64", "the scanner is a material")
	require.NotContains(t, told, "BUILDKIT_SCAN_SOURCE", "the graph is that of the result")
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
