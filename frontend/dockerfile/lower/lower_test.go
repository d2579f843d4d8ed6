package lower_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// lowerText parses and lowers a file. Images have an empty configuration.
func lowerText(text string) (*lower.Result, error) {
	f, err := parser.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	d, err := instruction.Parse(f)
	if err != nil {
		return nil, err
	}
	b, err := lower.New(lower.Options{
		File: f, Dockerfile: d, TargetPlatform: amd64, BuildPlatform: amd64,
		Context: func(paths []string) llb.State { return llb.Local("context", llb.FollowPaths(paths...)) },
	})
	if err != nil {
		return nil, err
	}
	for reqs := b.Requests(); len(reqs) > 0; reqs = b.Requests() {
		for _, r := range reqs {
			if err := b.Answer(r, lower.Source{Config: []byte("{}")}); err != nil {
				return nil, err
			}
		}
	}
	return b.Finish(nil)
}

func TestExpose(t *testing.T) {
	for args, want := range map[string]string{
		"80":                           "80/tcp",
		"90-92/udp 80/TCP":             "80/tcp 90/udp 91/udp 92/udp",
		"127.0.0.1:80:8080 1:2/sctp":   "2/sctp 8080/tcp",
		"eighty":                       "invalid containerPort: eighty",
		"90-80":                        "invalid containerPort: 90-80",
		"70000":                        "invalid containerPort: 70000",
		"80/carrier":                   `invalid port: "80/carrier": invalid proto: carrier`,
		"80:":                          "no port specified: 80:<empty>",
		"${NONE:-1} $NONE 3":           "1/tcp 3/tcp",
		"[::1]:1-2:3-4/tcp 5-5/udp 03": "3/tcp 3/tcp 4/tcp 5/udp",
	} {
		res, err := lowerText("FROM scratch\nEXPOSE " + args)
		if err != nil {
			if err.Error() != want {
				t.Errorf("%s: got %v, want %s", args, err, want)
			}
			continue
		}
		history := res.Image.History[0].CreatedBy
		if got := strings.TrimSuffix(strings.TrimPrefix(history, "EXPOSE ["), "]"); got != want {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
}

func TestErrorsHaveOnePlace(t *testing.T) {
	for text, want := range map[string]string{
		"COPY --from=$X a b":                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
		"COPY --from=7 a b":                 "invalid stage index 7",
		"COPY http://host/x /x":             "source can't be a URL for COPY",
		"COPY https://host/x.git /x":        "source can't be a git ref for COPY",
		"COPY --chmod=99 a b":               "invalid chmod parameter: '99'. it should be octal string and between 0 and 07777",
		"COPY --chmod=77777 a b":            "invalid chmod parameter: '77777'. it should be octal string and between 0 and 07777",
		"COPY --chmod=hello a b":            "invalid syntax",
		"ADD --checksum=sha256:00 a /x":     "checksum requires HTTP(S) or Git sources",
		"ADD --checksum=x http://h/a b /x/": "checksum can't be specified for multiple sources",
		"RUN --mount=type=cache true":       `invalid mount target "/"`,
		"RUN --mount=type=tmpfs,target=/ x": `invalid mount target "/"`,
		"RUN --device=vendor.example/a=1 x": "device feature is only supported in Dockerfile frontend 1.14.0-labs or later",
		"RUN []":                            "RUN requires a command",
		"COPY <<a/b /x/\nE\na/b":            `here-document "a/b" cannot be the name of a file`,
		"COPY <<.. /x/\nE\n..":              `here-document ".." cannot be the name of a file`,
		"RUN <<a/b\n#!/bin/x\na/b":          `here-document "a/b" cannot be the name of a file`,
		"STOPSIGNAL SIGNOPE":                "invalid signal: SIGNOPE",
		"WORKDIR /${DIR:?needs a dir}":      `failed to process "/${DIR:?needs a dir}": DIR: needs a dir`,
		"VOLUME $NONE":                      "VOLUME specified can not be an empty string",
	} {
		_, err := lowerText("FROM scratch\n" + text)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
			continue
		}
		at, ok := err.(*parser.Error) //nolint:errorlint // the outermost error is what is asked about
		if !ok || len(at.Location) != 1+strings.Count(text, "\n") || at.Location[0].Start.Line != 2 {
			t.Errorf("%s: no place in %#v", text, err)
		}
	}
}

// A short file can be a large build: values double, every step has all variables, every stage runs
// all triggers, ports come in ranges. What cannot be built by anybody is refused before it fills the
// memory.
func TestFilesThatGrowBeyondMeasureAreRefused(t *testing.T) {
	const tooLarge = "the build is too large: with their variables, its instructions take more than 128 MiB"
	numbers := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, tc := range map[string]struct{ text, want string }{
		"a value that doubles": {
			"FROM scratch\nENV A=0123456789abcdef\n" + strings.Repeat("ENV A=$A$A\n", 60),
			`failed to process "$A$A": the result is longer than 16777216 bytes`,
		},
		"a global value that doubles": {
			"ARG A=0123456789abcdef\n" + strings.Repeat("ARG A=$A$A\n", 60) + "FROM scratch\n",
			`failed to process "$A$A": the result is longer than 16777216 bytes`,
		},
		"a long value in many labels": {
			"FROM scratch\nENV A=0123456789abcdef\n" + strings.Repeat("ENV A=$A$A\n", 15) + "LABEL" + numbers(10_000, " \\\n l%d=$A") + "\n", tooLarge,
		},
		"a long value in the names of steps": {
			"FROM scratch\nENV A=0123456789abcdef\n" + strings.Repeat("ENV A=$A$A\n", 15) + strings.Repeat("RUN x $A\n", 10_000), tooLarge,
		},
		"steps with many arguments":      {"FROM scratch\n" + numbers(10_000, "ARG a%d=\n") + strings.Repeat("RUN x\n", 10_000), tooLarge},
		"steps with many variables":      {"FROM scratch\n" + numbers(10_000, "ENV a%d=\n") + strings.Repeat("RUN x\n", 10_000), tooLarge},
		"stages that take over a lot":    {"FROM scratch AS a\n" + numbers(10_000, "LABEL a%d=\n") + strings.Repeat("FROM a AS a\n", 10_000), tooLarge},
		"stages that set over variables": {"FROM scratch AS a\nARG X=1\n" + numbers(10_000, "ENV a%d=\n") + strings.Repeat("ARG X=1\nFROM a AS a\n", 10_000), tooLarge},
		"stages that run many triggers":  {"FROM scratch AS a\n" + strings.Repeat("ONBUILD USER x\n", 10_000) + strings.Repeat("FROM a\n", 10_000), tooLarge},
		"ranges of ports":                {"FROM scratch\nEXPOSE" + strings.Repeat(" \\\n 1-65535", 10_000) + "\n", tooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lowerText(tc.text)
			var at *parser.Error
			if err == nil || err.Error() != tc.want || !errors.As(err, &at) {
				t.Errorf("got %.200v, want %s", err, tc.want)
			}
		})
	}
}

// BenchmarkParseAndLower shows that time is linear in the number of stages, whether they copy from
// one another or continue one another.
func BenchmarkParseAndLower(b *testing.B) {
	for _, n := range []int{10, 100, 500} {
		var copied, continued strings.Builder
		for i := range n {
			fmt.Fprintf(&copied, "FROM base AS s%d\nARG V%d=%d\nENV E%d=$V%d\nWORKDIR /w%d\nRUN --mount=type=cache,target=/c make s%d\n", i, i, i, i, i, i, i)
			if i > 0 {
				fmt.Fprintf(&copied, "COPY --from=s%d /out /in\n", i-1)
			}
			fmt.Fprintf(&continued, "FROM s%d AS s%d\nENV E%d=v\nWORKDIR /w%d\nRUN make s%d\n", i-1, i, i, i, i)
		}
		for shape, text := range map[string]string{
			"that copy": copied.String(), "that continue": strings.Replace(continued.String(), "s-1", "base", 1),
		} {
			b.Run(fmt.Sprintf("%d stages %s", n, shape), func(b *testing.B) {
				for b.Loop() {
					if _, err := lowerText(text); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
