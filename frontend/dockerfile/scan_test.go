package dockerfile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

// scannedTrees returns what the scanner of a solved definition has before it besides the result.
func scannedTrees(t *testing.T, def *pb.Definition) (names []string) {
	t.Helper()
	for _, data := range def.Def {
		var op pb.Op
		require.NoError(t, proto.Unmarshal(data, &op))
		if !slices.Contains(op.GetExec().GetMeta().GetArgs(), "scan") {
			continue
		}
		for _, m := range op.GetExec().GetMounts() {
			if name, ok := strings.CutPrefix(m.Dest, "/run/src/extras/sbom-"); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

func TestStagesAndContextAreScannedIfTheDockerfileSaysSo(t *testing.T) {
	const file = "FROM busybox AS one\nRUN a\nFROM busybox AS two\nRUN b\nFROM busybox AS unused\nRUN c\n" +
		"FROM scratch\nCOPY --from=one / /\nCOPY --from=two / /\nCOPY x /\n"
	in := func(stage, line string) string {
		return strings.Replace(file, "FROM busybox AS "+stage+"\n", "FROM busybox AS "+stage+"\n"+line+"\n", 1)
	}
	for name, tc := range map[string]struct {
		file string
		args map[string]string
		want []string
	}{
		"nothing":                 {file: file},
		"one stage":               {file: in("one", "ARG BUILDKIT_SBOM_SCAN_STAGE=true"), want: []string{"one"}},
		"a stage that is not so":  {file: in("one", "ARG BUILDKIT_SBOM_SCAN_STAGE=two")},
		"an unused stage":         {file: in("unused", "ARG BUILDKIT_SBOM_SCAN_STAGE=true")},
		"all stages":              {file: "ARG BUILDKIT_SBOM_SCAN_STAGE=1\n" + file, want: []string{"one", "two"}},
		"some stages":             {file: "ARG BUILDKIT_SBOM_SCAN_STAGE=Two,other\n" + file, want: []string{"two"}},
		"the context":             {file: file + "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n", want: []string{"context"}},
		"by the build":            {file: file, args: map[string]string{"BUILDKIT_SBOM_SCAN_CONTEXT": "true", "BUILDKIT_SBOM_SCAN_STAGE": "one"}, want: []string{"context", "one"}},
		"the build goes first":    {file: in("one", "ARG BUILDKIT_SBOM_SCAN_STAGE=true"), args: map[string]string{"BUILDKIT_SBOM_SCAN_STAGE": "false"}},
		"names are told apart":    {file: in("one", "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true") + "", want: []string{"context", "one"}},
		"a stage called context":  {file: strings.ReplaceAll(in("one", "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true"), "one", "context"), want: []string{"context", "context-0"}},
		"two in one instruction":  {file: in("two", "ARG BUILDKIT_SBOM_SCAN_STAGE=true BUILDKIT_SBOM_SCAN_CONTEXT=true"), want: []string{"context", "two"}},
		"what no boolean or name": {file: "ARG BUILDKIT_SBOM_SCAN_STAGE=,,\nARG BUILDKIT_SBOM_SCAN_CONTEXT\n" + file},
	} {
		t.Run(name, func(t *testing.T) {
			opts := map[string]string{"attest:sbom": "generator=scanner"}
			for k, v := range tc.args {
				opts["build-arg:"+k] = v
			}
			d := newDaemon(tc.file, opts)
			d.images["docker.io/library/scanner:latest"] = `{"architecture":"amd64","os":"linux","config":{"Entrypoint":["scan"]}}`
			d.locals["context"]["x"] = ""
			res, err := dockerfile.Build(t.Context(), d)
			require.NoError(t, err)
			require.Len(t, res.Attestations["linux/amd64"], 1)
			require.Len(t, d.solved, 2)
			result, scan := d.solved[0], d.solved[1]
			require.Equal(t, tc.want, scannedTrees(t, scan))
			// What is scanned is the result and what it is made of, not the same made once more.
			for _, data := range result.Def[:len(result.Def)-1] {
				require.Contains(t, scan.Def, data)
			}
			for _, data := range scan.Def {
				var op pb.Op
				require.NoError(t, proto.Unmarshal(data, &op))
				for _, kv := range op.GetExec().GetMeta().GetEnv() {
					require.NotContains(t, kv, "SBOM_SCAN")
				}
			}
		})
	}
}

func TestEveryPlatformIsScanned(t *testing.T) {
	d := newDaemon("FROM busybox\nRUN a\n", map[string]string{"build-arg:BUILDKIT_ATTEST_SBOM": "generator=scanner", "platform": "linux/amd64,linux/arm64"})
	d.images["docker.io/library/scanner:latest"] = `{"config":{"Cmd":["scan"]}}`
	res, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Len(t, res.Attestations["linux/amd64"], 1)
	require.Len(t, res.Attestations["linux/arm64"], 1)
	count := 0
	for _, name := range d.resolved {
		if strings.Contains(name, "scanner") {
			count++
		}
	}
	require.Equal(t, 1, count, "the scanner is looked up once")
}

func TestWithoutAScannerNothingIsBuilt(t *testing.T) {
	d := newDaemon("FROM scratch\n", map[string]string{"attest:sbom": "generator="})
	_, err := dockerfile.Build(t.Context(), d)
	require.EqualError(t, err, "sbom generator cannot be empty")
	d = newDaemon("FROM busybox\nRUN a\n", map[string]string{"attest:sbom": "generator=busybox"})
	d.images["docker.io/library/busybox:latest"] = `{"config":{}}`
	_, err = dockerfile.Build(t.Context(), d)
	require.ErrorContains(t, err, "scanner docker.io/library/busybox:latest does not have cmd")
}
