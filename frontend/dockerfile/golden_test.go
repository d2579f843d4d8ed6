package dockerfile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

var update = flag.Bool("update", false, "rewrite the expected parts of the golden files")

// TestGolden builds the Dockerfiles of testdata. A file is one story: its first line says why.
// The parts that are given: opts (key=value lines), caps (ids that the daemon has), channel (of the
// language, "labs" or else the stable one), image/REF (a configuration), Dockerfile and other files of the local "dockerfile", context/FILE. Those that
// are expected: llb (a summary of the graph), config (of the image), meta (other metadata),
// warnings, error, text and json (the answer to a subrequest).
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			given, want := splitArchive(archive)
			got := runGolden(t, given, buildHere)
			if *update {
				archive.Files = given
				for _, name := range expectedParts {
					if text, ok := got[name]; ok {
						archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(text)})
					}
				}
				require.NoError(t, os.WriteFile(file, txtar.Format(archive), 0o644))
				return
			}
			require.Equal(t, want, got)
		})
	}
}

var expectedParts = []string{"llb", "config", "meta", "warnings", "error", "text", "json"}

func splitArchive(a *txtar.Archive) (given []txtar.File, want map[string]string) {
	want = map[string]string{}
	for _, f := range a.Files {
		if slices.Contains(expectedParts, f.Name) {
			want[f.Name] = string(f.Data)
		} else {
			given = append(given, f)
		}
	}
	return given, want
}

// buildFunc runs the frontend for a daemon.
type buildFunc func(t *testing.T, d *daemon) (*gateway.Result, error)

func buildHere(t *testing.T, d *daemon) (*gateway.Result, error) {
	t.Helper()
	return d.frontend(t.Context(), d)
}

func runGolden(t *testing.T, files []txtar.File, build buildFunc) map[string]string {
	d := newDaemon("", map[string]string{})
	delete(d.locals["dockerfile"], "Dockerfile")
	for _, f := range files {
		text := string(f.Data)
		switch {
		case f.Name == "opts":
			for line := range strings.Lines(text) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				d.opts.Opts[key] = value
			}
		case f.Name == "caps":
			for _, id := range strings.Fields(text) {
				d.opts.LLBCaps[id] = true
			}
		case f.Name == "channel":
			require.Equal(t, "labs\n", text)
			d.frontend = dockerfile.BuildLabs
		case strings.HasPrefix(f.Name, "image/"):
			d.images[strings.TrimPrefix(f.Name, "image/")] = text
		case strings.HasPrefix(f.Name, "context/"):
			d.locals["context"][strings.TrimPrefix(f.Name, "context/")] = text
		default:
			d.locals["dockerfile"][f.Name] = text
		}
	}
	res, err := build(t, d)
	got := map[string]string{}
	if len(d.warnings) > 0 {
		got["warnings"] = strings.Join(d.warnings, "\n") + "\n"
	}
	if err != nil {
		var b bytes.Buffer
		require.NoError(t, status.PrintSources(&b, err))
		got["error"] = b.String() + err.Error() + "\n"
		return got
	}
	if text, ok := res.Metadata["result.txt"]; ok {
		got["text"] = string(text)
		got["json"] = string(res.Metadata["result.json"]) + "\n"
		if code, ok := res.Metadata["result.statuscode"]; ok {
			got["meta"] = "result.statuscode: " + string(code) + "\n"
		}
		return got
	}
	got["llb"] = summarizeResult(t, d, res)
	got["config"], got["meta"] = summarizeMeta(t, res)
	if got["meta"] == "" {
		delete(got, "meta")
	}
	return got
}

func summarizeResult(t *testing.T, d *daemon, res *gateway.Result) string {
	if len(res.Refs) == 0 {
		if len(d.solved) == 0 {
			return ""
		}
		return summarize(t, d.solved[len(d.solved)-1])
	}
	var b strings.Builder
	require.NoError(t, res.EachRef(func(id string, ref gateway.Reference) error {
		fmt.Fprintf(&b, "== %s\n%s", id, summarize(t, ref.Definition()))
		return nil
	}))
	return b.String()
}

func summarizeMeta(t *testing.T, res *gateway.Result) (config, meta string) {
	var c, m strings.Builder
	for _, key := range slices.Sorted(mapKeys(res.Metadata)) {
		value := res.Metadata[key]
		switch {
		case strings.HasPrefix(key, "containerimage.config"):
			if suffix := strings.TrimPrefix(key, "containerimage.config"); suffix != "" {
				fmt.Fprintf(&c, "== %s\n", suffix[1:])
			}
			require.NoError(t, writeJSON(&c, value))
		case strings.HasPrefix(key, "containerimage.base.config"):
		case key == "refs.platforms" && bytes.Equal(value, []byte(onePlatform)):
		default:
			fmt.Fprintf(&m, "%s: %s\n", key, value)
		}
	}
	return c.String(), m.String()
}

const onePlatform = `{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}`

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func writeJSON(b *strings.Builder, data []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", " "); err != nil {
		return err
	}
	b.WriteString(out.String() + "\n")
	return nil
}

// summarize writes a definition as text: ops with numbers instead of digests, and what their
// metadata says about them.
func summarize(t *testing.T, def *pb.Definition) string {
	var b strings.Builder
	number := map[string]int{}
	for i, dt := range def.GetDef() {
		var op pb.Op
		require.NoError(t, proto.Unmarshal(dt, &op))
		dgst := digest.FromBytes(dt).String()
		number[dgst] = i + 1
		var inputs []string
		for _, in := range op.Inputs {
			text := strconv.Itoa(number[in.Digest])
			if in.Index != 0 {
				text += fmt.Sprintf(".%d", in.Index)
			}
			inputs = append(inputs, text)
		}
		fmt.Fprintf(&b, "%d", i+1)
		if len(inputs) > 0 {
			fmt.Fprintf(&b, " <- %s", strings.Join(inputs, " "))
		}
		summarizeOp(t, &b, &op)
		summarizeOpMeta(&b, def, dgst)
	}
	return b.String()
}

func summarizeOp(t *testing.T, b *strings.Builder, op *pb.Op) {
	line := func(label string, v any) {
		dt, err := json.Marshal(v)
		require.NoError(t, err)
		text := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(dt))
		fmt.Fprintf(b, "   %s %s\n", label, text)
	}
	if p := op.Platform; p != nil {
		fmt.Fprintf(b, " %s/%s", p.OS, p.Architecture)
		if p.Variant != "" {
			fmt.Fprintf(b, "/%s", p.Variant)
		}
	}
	switch {
	case op.GetSource() != nil:
		fmt.Fprintf(b, " source %s\n", op.GetSource().Identifier)
		if len(op.GetSource().Attrs) > 0 {
			line("attrs", op.GetSource().Attrs)
		}
	case op.GetExec() != nil:
		exec := op.GetExec()
		b.WriteString(" exec\n")
		line("meta", exec.Meta)
		if exec.Network != 0 || exec.Security != 0 {
			fmt.Fprintf(b, "   network %v security %v\n", exec.Network, exec.Security)
		}
		for _, m := range exec.Mounts {
			line("mount", m)
		}
		for _, s := range exec.Secretenv {
			line("secretenv", s)
		}
		for _, d := range exec.CdiDevices {
			line("device", d)
		}
	case op.GetFile() != nil:
		b.WriteString(" file\n")
		for _, a := range op.GetFile().Actions {
			line("action", a)
		}
	case op.GetMerge() != nil:
		b.WriteString(" merge\n")
	default:
		b.WriteString(" result\n")
	}
}

func summarizeOpMeta(b *strings.Builder, def *pb.Definition, dgst string) {
	m := def.Metadata[dgst]
	if name := m.GetDescription()[pb.DescriptionName]; name != "" {
		fmt.Fprintf(b, "   name %s\n", name)
	}
	if m.GetIgnoreCache() {
		b.WriteString("   ignore cache\n")
	}
	if g := m.GetProgressGroup(); g != nil {
		fmt.Fprintf(b, "   group %s weak=%v\n", g.Name, g.Weak)
	}
	if r := m.GetLinuxResources(); r != nil {
		fmt.Fprintf(b, "   resources memory=%d\n", r.Memory)
	}
	for _, l := range def.GetSource().GetLocations()[dgst].GetLocations() {
		var lines []string
		for _, r := range l.Ranges {
			lines = append(lines, strconv.Itoa(int(r.Start.Line)))
		}
		fmt.Fprintf(b, "   lines %s\n", strings.Join(lines, " "))
	}
}

// TestGoldenIsStable builds one file often: maps and goroutines must not show in the result.
func TestGoldenIsStable(t *testing.T) {
	text := "FROM busybox AS a\nRUN --mount=type=secret,id=x --mount=type=cache,target=/c true\n" +
		"FROM busybox AS b\nCOPY --from=a / /a/\nFROM a\nCOPY --from=b / /b/\nCOPY x y /z/\nLABEL a=b c=d\n"
	var want *pb.Definition
	for range 20 {
		d := newDaemon(text, map[string]string{"label:x": "1", "label:y": "2", "build-arg:HTTP_PROXY": "p", "build-arg:http_proxy": "q"})
		_, err := dockerfile.Build(context.Background(), d)
		require.NoError(t, err)
		got := d.solved[len(d.solved)-1]
		if want == nil {
			want = got
		}
		require.True(t, proto.Equal(want, got))
	}
}
