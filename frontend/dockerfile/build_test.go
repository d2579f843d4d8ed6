package dockerfile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

func TestOptionErrors(t *testing.T) {
	for opt, want := range map[string]string{
		"platform=not-a-platform":                   `failed to parse target platform not-a-platform: "not-a-platform": unknown operating system or architecture: invalid argument`,
		"add-hosts=nonsense":                        "failed to parse additional hosts: invalid key-value pair nonsense",
		"add-hosts=v6=[::5]":                        "failed to parse additional hosts: failed to parse IP [::5]",
		"force-network-mode=wifi":                   "invalid netmode wifi",
		"image-resolve-mode=guess":                  "invalid image-resolve-mode: guess",
		"shm-size=big":                              `failed to parse shm size: strconv.ParseInt: parsing "big": invalid syntax`,
		"ulimit=nofile":                             "failed to parse ulimit: invalid ulimit argument: nofile",
		"memory=-5":                                 "failed to parse resource limits: invalid memory value: -5: must be > 0",
		"cpushares=x":                               `failed to parse resource limits: invalid cpushares value: x: strconv.ParseUint: parsing "x": invalid syntax`,
		"cache-imports=notjson":                     `failed to unmarshal cache-imports ("notjson"): invalid character 'o' in literal null (expecting 'u')`,
		"build-arg:SOURCE_DATE_EPOCH=yesterday":     "invalid SOURCE_DATE_EPOCH: yesterday",
		"build-arg:BUILDKIT_DOCKERFILE_CHECK=a=b":   `failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option "a"`,
		"override-copy-image=x":                     `support for "override-copy-image" was removed in BuildKit 0.11`,
		"frontend.caps=moby.buildkit.frontend.x":    "unsupported frontend capability moby.buildkit.frontend.x",
		"requestid=frontend.dance":                  "unsupported request frontend.dance",
		"target=biuld":                              `target stage "biuld" could not be found (did you mean build?)`,
		"filename=Missing":                          "failed to read dockerfile: open Missing: file does not exist",
		"context:busybox=ftp://x":                   "unsupported context source ftp for busybox",
		"context:busybox=oci-layout://store":        `oci-layout reference "store" has no digest`,
		"context:busybox=input:nope":                "invalid input nope for busybox",
		"context:busybox=what":                      "invalid context specifier what for busybox",
		"build-arg:BUILDKIT_MULTI_PLATFORM=perhaps": "invalid boolean value for multi-platform: perhaps",
	} {
		t.Run(opt, func(t *testing.T) {
			key, value, _ := strings.Cut(opt, "=")
			_, err := dockerfile.Build(t.Context(), newDaemon("FROM busybox AS build\nRUN true\n", map[string]string{key: value}))
			require.EqualError(t, err, want)
		})
	}
	_, err := dockerfile.Build(t.Context(), newDaemon("FROM scratch", map[string]string{
		"platform": "linux/amd64,linux/arm64", "multi-platform": "false",
	}))
	require.EqualError(t, err, "conflicting config: returning multiple target platforms is not allowed")
	_, err = dockerfile.Build(t.Context(), newDaemon("FROM scratch", map[string]string{
		"build-arg:BUILDKIT_DOCKERFILE_CHECK": "a=b", "filename": "Missing",
	}))
	require.ErrorContains(t, err, "invalid check option", "options are looked at before the Dockerfile")
}

func TestOneOfSeveralPlatformsAsked(t *testing.T) {
	d := newDaemon("FROM scratch\nCMD [\"x\"]", map[string]string{"platform": "linux/arm64", "multi-platform": "true"})
	res, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Nil(t, res.Ref)
	require.Contains(t, res.Refs, "linux/arm64")
	require.Contains(t, res.Metadata, "containerimage.config/linux/arm64")
	require.JSONEq(t, `{"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}`, string(res.Metadata["refs.platforms"]))
}

func TestImagesAreResolvedOncePerPlatform(t *testing.T) {
	d := newDaemon("FROM busybox AS a\nFROM docker.io/library/busybox:latest AS b\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\nCOPY --from=busybox / /\n", nil)
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"[internal] load metadata for docker.io/library/busybox:latest"}, d.resolved)
}

func TestUnusedStagesAreNotResolved(t *testing.T) {
	d := newDaemon("FROM absent AS a\nRUN x\nFROM a\nRUN y\nFROM busybox\n", nil)
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
}

func TestErrorsNameTheFirstImageAtFault(t *testing.T) {
	for range 20 {
		_, err := dockerfile.Build(t.Context(), newDaemon("FROM one AS a\nFROM two\nCOPY --from=a / /\nCOPY --from=three / /\n", nil))
		require.ErrorContains(t, err, "two: failed to resolve source metadata for docker.io/library/two:latest")
	}
}

func TestSyntaxIsForwarded(t *testing.T) {
	d := newDaemon("# syntax=example/frontend:1 extra\nanything", map[string]string{"target": "x"})
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Len(t, d.requests, 1)
	require.Equal(t, "gateway.v0", d.requests[0].Frontend)
	require.Equal(t, map[string]string{"target": "x", "source": "example/frontend:1", "cmdline": "example/frontend:1 extra"}, d.requests[0].FrontendOpt)

	// What was forwarded here is not forwarded again.
	d = newDaemon("# syntax=example/frontend:1\nFROM scratch\nCMD x", map[string]string{"cmdline": "example/frontend:1"})
	_, err = dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Empty(t, d.requests)

	_, err = dockerfile.Build(t.Context(), newDaemon("# syntax=Not A Ref\nFROM scratch", nil))
	require.EqualError(t, err, "invalid context name Not: invalid reference format: repository name (library/Not) must be lowercase")
	require.Len(t, status.Sources(err), 1)
}

func TestTextThatIsNotUTF8IsFoundInItsLine(t *testing.T) {
	_, err := dockerfile.Build(t.Context(), newDaemon("FROM scratch\n# caf\xe9\nLABEL l=caf\xe9\nRUN echo caf\xe9\n", nil))
	require.ErrorContains(t, err, "invalid UTF-8")
	require.Len(t, status.Sources(err), 1)
	require.EqualValues(t, 4, status.Sources(err)[0].Ranges[0].Start.Line)
}

func TestTheLineOfTheSyntaxIsShownOnlyIfTheFrontendShowsNone(t *testing.T) {
	plain := errors.New("no")
	placed := status.WithSource(plain, &pb.SourceInfo{Filename: "other"}, &pb.Range{Start: &pb.Position{Line: 7}})
	for name, tc := range map[string]struct {
		text     string
		opts     map[string]string
		failure  error
		want     string
		filename string
	}{
		"of the file":                   {"# syntax=example/one", nil, plain, "no", "Dockerfile"},
		"of the file, with a place":     {"# syntax=example/one", nil, placed, "no", "other"},
		"of the argument":               {"", map[string]string{"build-arg:BUILDKIT_SYNTAX": "example/one"}, plain, "failed with build-arg:BUILDKIT_SYNTAX = example/one: no", ""},
		"of the argument, with a place": {"", map[string]string{"build-arg:BUILDKIT_SYNTAX": "example/one"}, placed, "no", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(tc.text+"\nFROM scratch\n", tc.opts)
			d.failure = tc.failure
			_, err := dockerfile.Build(t.Context(), d)
			require.EqualError(t, err, tc.want)
			var shown []string
			for _, s := range status.Sources(err) {
				shown = append(shown, s.Info.Filename)
			}
			require.Equal(t, tc.filename, strings.Join(shown, " "))
		})
	}
}

func TestLowerCaseFileNameIsFound(t *testing.T) {
	d := newDaemon("", nil)
	d.locals["dockerfile"] = map[string]string{"dockerfile": "FROM scratch\nCMD [\"x\"]"}
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
}

func TestContextAsInput(t *testing.T) {
	def, err := llb.Image("docker.io/library/source:1").Marshal(t.Context())
	require.NoError(t, err)
	d := newDaemon("FROM scratch\nCOPY a /\n", nil)
	d.inputs = map[string]*pb.Definition{"context": def}
	// The file is then in the input too.
	_, err = dockerfile.Build(t.Context(), d)
	require.ErrorContains(t, err, "failed to read dockerfile")

	d.opts.Opts = map[string]string{"dockerfilekey": "dockerfile"}
	_, err = dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	var op pb.Op
	require.NoError(t, proto.Unmarshal(d.solved[len(d.solved)-1].Def[0], &op))
	require.Equal(t, "docker-image://docker.io/library/source:1", op.GetSource().Identifier)
}

func TestBadIgnorePattern(t *testing.T) {
	for text, want := range map[string]string{"[": "syntax error in pattern", "!": `illegal exclusion pattern: "!"`} {
		d := newDaemon("FROM scratch\nCOPY . /\n", nil)
		d.locals["dockerfile"]["Dockerfile.dockerignore"] = text
		_, err := dockerfile.Build(t.Context(), d)
		require.EqualError(t, err, want)
	}
}

func TestALargeIgnoreFileIsRefused(t *testing.T) {
	const rules = 4 << 20 / 16
	for _, name := range []string{"Dockerfile.dockerignore", ".dockerignore"} {
		d := newDaemon("FROM scratch\nCOPY a.txt /\n", nil)
		files := d.locals["context"]
		if name != ".dockerignore" {
			files = d.locals["dockerfile"]
		}
		// Patterns of which each takes long to compile: only so many are, for warnings.
		files[name] = strings.Repeat("**/x?y/**/a*.txt\n"[1:], rules)
		_, err := dockerfile.Build(t.Context(), d)
		require.NoError(t, err)
		files[name] += "x"
		_, err = dockerfile.Build(t.Context(), d)
		require.EqualError(t, err, "failed parsing "+name+": it has more than the allowed 4194304 bytes")
	}
}

// Each warning has the whole file with it.
func TestALargeFileHasFewerWarnings(t *testing.T) {
	for size, want := range map[int]int{1 << 10: 1000, 1 << 20: 62, 8 << 20: 10} {
		warned := "FROM scratch\n" + strings.Repeat("MAINTAINER x\n", 2000)
		d := newDaemon(warned+strings.Repeat("# comment\n", size/10), nil)
		_, err := dockerfile.Build(t.Context(), d)
		require.NoError(t, err)
		require.Len(t, d.warnings, want)
	}
}

func TestEpoch(t *testing.T) {
	d := newDaemon("FROM scratch\nWORKDIR /x\nCOPY a /\n", map[string]string{"build-arg:SOURCE_DATE_EPOCH": "1767225600"})
	res, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, "1767225600", string(res.Metadata["source.date.epoch"]))
	var img struct{ Created time.Time }
	require.NoError(t, json.Unmarshal(res.Metadata["containerimage.config"], &img))
	require.Equal(t, int64(1767225600), img.Created.Unix())
	ops := summarize(t, d.solved[0])
	require.Equal(t, 1, strings.Count(ops, `"timestamp":1767225600000000000`), "the directory is made at that time")
	require.Equal(t, 1, strings.Count(ops, `"timestamp":-1`), "the copy keeps times")
}

// slowDaemon resolves nothing until it is told to stop.
type slowDaemon struct{ *daemon }

func (slowDaemon) ResolveSourceMeta(ctx context.Context, _ *pb.SourceOp, _ gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// pickyDaemon finds all images but one, slower than it fails to find that one.
type pickyDaemon struct {
	*daemon
	absent string
}

func (d pickyDaemon) ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	if strings.Contains(op.Identifier, d.absent) {
		return d.daemon.ResolveSourceMeta(ctx, op, opt)
	}
	<-ctx.Done()
	return nil, fmt.Errorf("failed to resolve source metadata for %s: %w", op.Identifier, context.Cause(ctx))
}

func TestImagesThatAreNoLongerNeededAreNotBlamed(t *testing.T) {
	d := newDaemon("FROM busybox AS builder\nFROM alpine\nCOPY --from=biulder /a /a\nCOPY --from=builder /b /b\n", map[string]string{"platform": "linux/amd64,linux/arm64"})
	_, err := dockerfile.Build(t.Context(), pickyDaemon{d, "biulder"})
	require.EqualError(t, err, "biulder: failed to resolve source metadata for docker.io/library/biulder:latest: not found (did you mean builder?)")
	require.Len(t, status.Sources(err), 1)
	require.EqualValues(t, 3, status.Sources(err)[0].Ranges[0].Start.Line)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the user")
	cancel(stop)
	_, err := dockerfile.Build(ctx, slowDaemon{newDaemon("FROM busybox\nFROM alpine\nCOPY --from=0 / /", nil)})
	require.Error(t, err)
}

// FuzzIgnore checks that no .dockerignore makes the frontend panic.
func FuzzIgnore(f *testing.F) {
	for _, seed := range []string{"# c\n*.log\n!keep.log\n/top\nd/*\n!d/yes\n**/x\n  s  \n", "[", "!", "\xef\xbb\xbf*\r\n", ".", "a/../b\n\\#x\n", "[a-"} {
		f.Add(seed, "a.txt")
	}
	f.Fuzz(func(t *testing.T, ignore, name string) {
		d := newDaemon("FROM scratch\nARG N\nCOPY $N ./d/x /y/\n", map[string]string{"build-arg:N": name})
		d.locals["context"][".dockerignore"] = ignore
		if _, err := dockerfile.Build(t.Context(), d); err == nil && len(d.solved) == 0 {
			t.Fatal("nothing was solved")
		}
	})
}

// stages returns a file of n stages that build on each other and copy from each other.
func stages(n int) string {
	var b strings.Builder
	b.WriteString("ARG BASE=busybox\n")
	for i := range n {
		base := "$BASE"
		if i%5 != 0 {
			base = fmt.Sprintf("s%d", i-1)
		}
		fmt.Fprintf(&b, "FROM %s AS s%d\nARG V%d=%d\nENV E%d=$V%d\nWORKDIR /w%d\nRUN --mount=type=cache,target=/c make s%d\n", base, i, i, i, i, i, i, i)
		if i > 0 {
			fmt.Fprintf(&b, "COPY --from=s%d /out /in\n", i-1)
		}
	}
	return b.String()
}

func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{10, 100, 500} {
		text := stages(n)
		b.Run(fmt.Sprintf("%d stages", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := dockerfile.Build(b.Context(), newDaemon(text, nil)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLint shows that checking a file takes time that is linear in the number of stages, all of
// which are checked.
func BenchmarkLint(b *testing.B) {
	for _, n := range []int{10, 100, 500} {
		text := stages(n)
		b.Run(fmt.Sprintf("%d stages", n), func(b *testing.B) {
			for b.Loop() {
				res, err := dockerfile.Build(b.Context(), newDaemon(text, map[string]string{"requestid": "frontend.lint"}))
				if err != nil {
					b.Fatal(err)
				}
				require.Contains(b, string(res.Metadata["result.json"]), `"warnings": null`)
			}
		})
	}
}

// TestLargeFiles guards against time that is not linear: each of the files takes far less than a
// second, and would take minutes if it were quadratic.
func TestLargeFiles(t *testing.T) {
	const size = 1 << 20
	for name, text := range map[string]string{
		"many instructions":    "FROM busybox\n" + strings.Repeat("LABEL a=b\n", size/10),
		"one long instruction": "FROM busybox\nRUN x" + strings.Repeat(" \\\n y", size/5),
		"one long document":    "FROM busybox\nRUN <<E\n" + strings.Repeat("echo\n", size/5) + "E\n",
		"many documents":       "FROM busybox\nCOPY " + strings.Repeat("<<E \\\n", size/32) + "/d/\n" + strings.Repeat("x\nE\n", size/32),
		"many pairs":           "FROM busybox\nENV" + numbered(size/16, " k%d=b \\\n") + " c=d\n",
		"many variables":       "FROM busybox\nENV a=" + numbered(size/16, "${a:-$b%d}\\\n") + "\n",
		"many arguments":       "FROM busybox\nARG " + numbered(size/16, " k%d=b \\\n") + " c=d\n",
		"many comments":        strings.Repeat("# x\n", size/4) + "FROM busybox\n",
		"many empty lines":     "FROM busybox\nRUN a \\\n" + strings.Repeat("\n", size) + "b\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := dockerfile.Build(t.Context(), newDaemon(text, nil))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 20*time.Second)
		})
	}
}
