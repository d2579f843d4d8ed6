package dockerfile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// everything summarizes all definitions that were solved, with what each op is told besides.
func everything(t *testing.T, d *daemon) string {
	t.Helper()
	var b strings.Builder
	for _, def := range d.solved {
		b.WriteString(summarize(t, def))
		for _, m := range def.Metadata {
			if m.LinuxResources != nil {
				fmt.Fprintf(&b, "limits %v\n", m.LinuxResources)
			}
		}
	}
	// The text of messages is kept unstable on purpose.
	return strings.Join(strings.Fields(b.String()), " ")
}

// Each option changes what it is for, which is not there without it.
func TestOptionsOneByOne(t *testing.T) {
	const file = "FROM busybox AS one\nARG A=default\nRUN echo $A\nCOPY f /\nFROM one AS two\nRUN true\nLABEL l=file\n"
	for opt, want := range map[string]string{
		"target=one":                              "5 <- 4 result",
		"target=ONE":                              "5 <- 4 result",
		"filename=sub/Other":                      `exec meta {"args":["/bin/sh","-c","other"]`,
		"platform=linux/arm64":                    `linux/arm64 exec`,
		"build-arg:A=given":                       `"A=given"`,
		"build-arg:HTTPS_PROXY=p":                 `"proxy_env":{"https_proxy":"p"}`,
		"build-arg:BUILDKIT_CACHE_MOUNT_NS=ns":    "",
		"build-arg:BUILDKIT_SANDBOX_HOSTNAME=box": `"hostname":"box"`,
		"no-cache=":                               "name [two 1/1] RUN true ignore cache",
		"no-cache=one,TWO":                        "name [two 1/1] RUN true ignore cache",
		"no-cache=two":                            "name [two 1/1] RUN true ignore cache",
		"cgroup-parent=/limits":                   `"cgroupParent":"/limits"`,
		"ulimit=nofile=10:20,core=0":              `"ulimit":[{"Name":"nofile","Soft":10,"Hard":20},{"Name":"core"}]`,
		"add-hosts=db=10.0.0.1,six=::1":           `"extraHosts":[{"Host":"db","IP":"10.0.0.1"},{"Host":"six","IP":"::1"}]`,
		"shm-size=1048576":                        `"dest":"/dev/shm","output":-1,"mountType":4,"TmpfsOpt":{"size":1048576}`,
		"hostname=box":                            `"hostname":"box"`,
		"force-network-mode=none":                 "network NONE",
		"force-network-mode=host":                 "network HOST",
		"force-network-mode=sandbox":              "",
		"image-resolve-mode=pull":                 `{"image.resolvemode":"pull"}`,
		"image-resolve-mode=local":                `{"image.resolvemode":"local"}`,
		"image-resolve-mode=default":              "",
		"memory=1000000":                          "limits memory:1000000",
		"memswap=-1":                              "limits memorySwap:-1",
		"cpushares=5":                             "limits cpuShares:5",
		"cpuperiod=6":                             "limits cpuPeriod:6",
		"cpuquota=-7":                             "limits cpuQuota:-7",
		"cpusetcpus=0-1":                          `limits cpusetCpus:"0-1"`,
		"cpusetmems=0":                            `limits cpusetMems:"0"`,
		"contextkey=src":                          "source local://src",
		"sharedkey:localdir:context=key":          `"local.sharedkeyhint":"key"`,
		"local-sessionid:context=other":           `"local.session":"other"`,
		"context:busybox=docker-image://other":    "source docker-image://docker.io/library/other:latest",
		"cmdline=docker/dockerfile":               "",
		"source=docker/dockerfile":                "",
		"attest:provenance=mode=max":              "",
		"vcs:source=https://example.com/r.git":    "",
	} {
		t.Run(opt, func(t *testing.T) {
			build := func(opts map[string]string) string {
				d := newDaemon(file, opts)
				d.locals["dockerfile"]["sub/Other"] = "FROM busybox\nRUN other\n"
				d.images["docker.io/library/other:latest"] = "{}"
				_, err := dockerfile.Build(t.Context(), d)
				require.NoError(t, err)
				return everything(t, d)
			}
			key, value, _ := strings.Cut(opt, "=")
			plain, got := build(map[string]string{}), build(map[string]string{key: value})
			if want == "" {
				require.Equal(t, plain, got)
				return
			}
			require.Contains(t, got, want)
			require.NotContains(t, plain, want)
		})
	}
}

func TestLabelsOfTheBuildWin(t *testing.T) {
	d := newDaemon("FROM busybox\nLABEL l=file k=file\n", map[string]string{"label:l": "option", "label:m": ""})
	res, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	var img struct {
		Config struct{ Labels map[string]string }
	}
	require.NoError(t, json.Unmarshal(res.Metadata["containerimage.config"], &img))
	require.Equal(t, map[string]string{"l": "option", "k": "file", "m": ""}, img.Config.Labels)
}

func TestSeveralPlatformsOrOneAsSeveral(t *testing.T) {
	for opt, want := range map[string]int{
		"":                                           0,
		"platform=linux/arm64":                       0,
		"platform=linux/amd64,linux/arm64":           2,
		"multi-platform=true":                        1,
		"multi-platform=false":                       0,
		"build-arg:BUILDKIT_MULTI_PLATFORM=1":        1,
		"platform= linux/amd64 , ,linux/arm/v6 ":     2,
		"platform=linux/amd64,linux/amd64/v2,darwin": 3,
	} {
		key, value, _ := strings.Cut(opt, "=")
		res, err := dockerfile.Build(t.Context(), newDaemon("FROM scratch\nWORKDIR /x\n", map[string]string{key: value}))
		require.NoError(t, err)
		require.Len(t, res.Refs, want, opt)
		require.Equal(t, want == 0, res.Ref != nil, opt)
	}
}

// solves keeps the caches that solves import from, and what was read of locals.
type solves struct {
	*daemon
	mu      sync.Mutex
	imports [][]gateway.CacheImport
	locals  []string
}

func (s *solves) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	s.mu.Lock()
	s.imports = append(s.imports, req.CacheImports)
	if name, ok := s.local(req.Definition); ok {
		var op pb.Op
		if err := proto.Unmarshal(req.Definition.Def[0], &op); err != nil {
			return nil, err
		}
		title := req.Definition.Metadata[digest.FromBytes(req.Definition.Def[0]).String()].GetDescription()[pb.DescriptionName]
		s.locals = append(s.locals, name+" "+title+" "+op.GetSource().Attrs[pb.AttrLocalFollowPaths])
	}
	s.mu.Unlock()
	return s.daemon.Solve(ctx, req)
}

func TestCachesAreImportedByTheSolvesOfTheFrontend(t *testing.T) {
	registry := func(ref string) gateway.CacheImport {
		return gateway.CacheImport{Type: "registry", Attrs: map[string]string{"ref": ref}}
	}
	for opt, want := range map[string][]gateway.CacheImport{
		"": nil,
		`cache-imports=[{"Type":"local","Attrs":{"src":"d"}},{"Type":"registry","Attrs":{"ref":"r"}}]`: {
			{Type: "local", Attrs: map[string]string{"src": "d"}}, registry("r"),
		},
		"cache-from=a,b:1": {registry("a"), registry("b:1")},
	} {
		key, value, _ := strings.Cut(opt, "=")
		s := &solves{daemon: newDaemon("FROM busybox\nRUN true\n", map[string]string{key: value})}
		_, err := dockerfile.Build(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, want, s.imports[len(s.imports)-1], opt)
	}
}

func TestOnlyWhatIsNeededOfTheDefinitionIsRead(t *testing.T) {
	for filename, want := range map[string]string{
		"Dockerfile":     `["Dockerfile","Dockerfile.dockerignore","dockerfile"]`,
		"sub/Dockerfile": `["sub/Dockerfile","sub/Dockerfile.dockerignore","sub/dockerfile"]`,
		"other.file":     `["other.file","other.file.dockerignore"]`,
	} {
		s := &solves{daemon: newDaemon("", map[string]string{"filename": filename})}
		s.daemon.locals["dockerfile"][filename] = "FROM busybox\nCOPY x /\n"
		_, err := dockerfile.Build(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, []string{
			"dockerfile [internal] load build definition from " + filename + " " + want,
			`context [internal] load .dockerignore [".dockerignore"]`,
		}, s.locals)
	}
	s := &solves{daemon: newDaemon("FROM busybox\nCOPY x /\n", map[string]string{"dockerfilekey": "files"})}
	s.daemon.locals["files"] = map[string]string{"Dockerfile": "FROM busybox\n"}
	_, err := dockerfile.Build(t.Context(), s)
	require.NoError(t, err)
	require.Contains(t, s.locals[0], "files [internal] load build definition from Dockerfile")
}

func TestCapabilitiesThatAClientRequires(t *testing.T) {
	const syntax = "# syntax=example/frontend\nFROM scratch\nWORKDIR /x\n"
	for caps, want := range map[string]string{
		"": "",
		"moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests":              "",
		"moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring": "",
		"moby.buildkit.frontend.dance":                                                  "unsupported frontend capability moby.buildkit.frontend.dance",
		"moby.buildkit.frontend.dance+forward":                                          "unsupported frontend capability moby.buildkit.frontend.dance",
	} {
		_, err := dockerfile.Build(t.Context(), newDaemon("FROM scratch\nWORKDIR /x\n", map[string]string{"frontend.caps": caps}))
		if want == "" {
			require.NoError(t, err, caps)
			continue
		}
		require.EqualError(t, err, want, caps)
		var missing *status.FrontendCapError
		require.ErrorAs(t, err, &missing)

		// The frontend that the file names may have what this one lacks.
		d := newDaemon(syntax, map[string]string{"frontend.caps": caps})
		_, err = dockerfile.Build(t.Context(), d)
		if strings.HasSuffix(caps, "+forward") {
			require.NoError(t, err)
			require.Len(t, d.requests, 1)
			continue
		}
		require.EqualError(t, err, want, caps)
	}
}

func TestAnArgumentNamesTheFrontendBeforeTheFile(t *testing.T) {
	d := newDaemon("# syntax=example/one\nFROM scratch\n", map[string]string{"build-arg:BUILDKIT_SYNTAX": "example/two:2 more"})
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Len(t, d.requests, 1)
	require.Equal(t, "example/two:2", d.requests[0].FrontendOpt["source"])
	require.Equal(t, "example/two:2 more", d.requests[0].FrontendOpt["cmdline"])
	_, err = dockerfile.Build(t.Context(), newDaemon("FROM scratch\n", map[string]string{"build-arg:BUILDKIT_SYNTAX": "Not:"}))
	require.ErrorContains(t, err, "failed with build-arg:BUILDKIT_SYNTAX = Not:: ")
}

func TestNamedContextsOfEveryKind(t *testing.T) {
	const hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	input, err := llb.Image("docker.io/library/input:1").Marshal(t.Context())
	require.NoError(t, err)
	for spec, want := range map[string]string{
		"docker-image://other":                         "source docker-image://docker.io/library/other:latest@" + string(digestOf("docker.io/library/other:latest")) + " name [context ctx] docker.io/library/other:latest",
		"docker-image://scratch":                       "",
		"git://example.com/r#v1:sub":                   "source git://example.com/r",
		"https://example.com/r.git#v1":                 "source git://example.com/r.git#v1",
		"git@example.com:r.git":                        "name [context ctx] git@example.com:r.git",
		"https://u:p@example.com/f.txt":                "name [context ctx] https://xxxxx@example.com/f.txt",
		"http://example.com/f.txt":                     "source http://example.com/f.txt",
		"oci-layout://store@" + hash:                   "source oci-layout://docker.io/library/ctx@" + hash,
		"oci-layout://store:tag@" + hash:               `"oci.store":"store"`,
		"local:dir":                                    "source local://dir",
		"input:given":                                  "source docker-image://docker.io/library/input:1",
		"docker-image://other@" + string(digestOf("")): "source docker-image://docker.io/library/other@" + string(digestOf("")),
	} {
		t.Run(spec, func(t *testing.T) {
			d := newDaemon("FROM busybox\nCOPY --from=ctx / /\n", map[string]string{"context:ctx": spec})
			d.locals["dir"] = map[string]string{"x": "x"}
			d.images["docker.io/library/other:latest"] = "{}"
			d.images["docker.io/library/other@"+string(digestOf(""))] = "{}"
			d.images["docker.io/library/ctx@"+hash] = "{}"
			d.inputs = map[string]*pb.Definition{"given": input}
			d.opts.Opts["dockerfilekey"] = "dockerfile"
			_, err := dockerfile.Build(t.Context(), d)
			require.NoError(t, err)
			require.Contains(t, everything(t, d), want)
			require.NotContains(t, everything(t, d), "name [context ctx] https://u:p@")
		})
	}
}

func TestNamedContextsForAPlatformComeFirst(t *testing.T) {
	build := func(opts map[string]string) string {
		opts["platform"] = "linux/arm64"
		d := newDaemon("FROM docker.io/library/busybox:latest AS a\nFROM a\nCOPY --from=busybox / /\n", opts)
		for _, name := range []string{"all", "arm", "stage"} {
			d.images["docker.io/library/"+name+":latest"] = "{}"
		}
		_, err := dockerfile.Build(t.Context(), d)
		require.NoError(t, err)
		return everything(t, d)
	}
	got := build(map[string]string{"context:busybox": "docker-image://all", "context:busybox::linux/arm64": "docker-image://arm", "context:busybox::linux/amd64": "docker-image://no"})
	require.Contains(t, got, "library/arm:latest")
	require.NotContains(t, got, "library/all:latest")
	got = build(map[string]string{"context:busybox": "docker-image://all", "context:a": "docker-image://stage"})
	require.Contains(t, got, "library/stage:latest")
	require.Contains(t, got, "library/all:latest")
}

func TestAnInputBringsItsConfiguration(t *testing.T) {
	input, err := llb.Image("docker.io/library/input:1").Marshal(t.Context())
	require.NoError(t, err)
	d := newDaemon("FROM ctx\nRUN true\n", map[string]string{
		"context:ctx": "input:given", "dockerfilekey": "dockerfile",
		"input-metadata:given": `{"containerimage.config":"eyJjb25maWciOnsiRW52IjpbIkZST01fSU5QVVQ9MSJdfX0="}`,
	})
	d.inputs = map[string]*pb.Definition{"given": input}
	_, err = dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Contains(t, everything(t, d), `"FROM_INPUT=1"`)
	d.opts.Opts["input-metadata:given"] = "nonsense"
	_, err = dockerfile.Build(t.Context(), d)
	require.ErrorContains(t, err, "invalid metadata of input given")
}

// What a context at a url is, and what of the client is not asked for then.
func TestContextsAtURLs(t *testing.T) {
	for url, want := range map[string]string{
		"https://example.com/r.git#main:sub": "source git://example.com/r.git#main:sub",
		"github.com/owner/name#v1":           "source git://github.com/owner/name.git#v1",
		"git://example.com/r":                "source git://example.com/r",
		"https://example.com/context.tar":    `"filename":"/context"`,
		"somewhere":                          "source local://context",
	} {
		t.Run(url, func(t *testing.T) {
			d := remoteDaemon{newDaemon("FROM scratch\nCOPY x /\n", map[string]string{"context": url, "dockerfilekey": "dockerfile"}), archive(t)}
			d.locals["context"][".dockerignore"] = "x"
			_, err := dockerfile.Build(t.Context(), d)
			require.NoError(t, err)
			got := everything(t, d.daemon)
			if strings.HasSuffix(url, ".tar") {
				require.Contains(t, got, `"src":"/context","dest":"/"`)
			} else {
				require.Contains(t, got, want)
			}
			require.Equal(t, url == "somewhere", strings.Contains(got, "local.excludepatterns"))
		})
	}
	d := remoteDaemon{newDaemon("", map[string]string{"context": "https://example.com/Dockerfile"}), "FROM scratch\nWORKDIR /from-url\n"}
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Contains(t, everything(t, d.daemon), "/from-url", "a file that is no archive is the Dockerfile")

	d = remoteDaemon{newDaemon("FROM scratch\nCOPY x /\n", map[string]string{
		"context": "https://example.com/r.git", "dockerfilekey": "dockerfile",
		"contextsubdir": "sub/dir", "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR": "true",
	}), ""}
	_, err = dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Contains(t, everything(t, d.daemon), `"src":"/sub/dir","dest":"/"`)
	require.Contains(t, everything(t, d.daemon), `"git.keepgitdir":"true"`)
}

// warningDaemon keeps all that is said of a warning.
type warningDaemon struct {
	*daemon
	opts []gateway.WarnOpt
}

func (d *warningDaemon) Warn(ctx context.Context, v digest.Digest, msg string, opt gateway.WarnOpt) error {
	d.opts = append(d.opts, opt)
	return d.daemon.Warn(ctx, v, msg, opt)
}

func TestWarningsSayWhereAndWhy(t *testing.T) {
	d := &warningDaemon{daemon: newDaemon("FROM busybox\nCMD echo \\\n hello\n", nil)}
	_, err := dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Len(t, d.opts, 1)
	w := d.opts[0]
	require.Equal(t, 1, w.Level)
	require.Equal(t, "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/", w.URL)
	require.Equal(t, "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals", string(w.Detail[0]))
	require.Equal(t, "Dockerfile", w.Source.Filename)
	require.Equal(t, []int32{2, 3}, []int32{w.Ranges[0].Start.Line, w.Ranges[1].Start.Line})

	d = &warningDaemon{daemon: newDaemon("FROM busybox\nCMD echo\n", nil)}
	d.daemon.opts.Caps = nil
	_, err = dockerfile.Build(t.Context(), d)
	require.NoError(t, err)
	require.Empty(t, d.opts, "a daemon that takes no warnings gets none")
}

func TestTheLargestFileIsBuilt(t *testing.T) {
	text := "FROM scratch\nWORKDIR /x\n" + strings.Repeat("# comment\n", 1<<20/10)
	_, err := dockerfile.Build(t.Context(), newDaemon(text, nil))
	require.NoError(t, err)
	text = "FROM scratch\nWORKDIR /x\n" + strings.Repeat("\n", parser.MaxSize)
	_, err = dockerfile.Build(t.Context(), newDaemon(text, nil))
	require.ErrorContains(t, err, "more than the allowed 16777216")
}
