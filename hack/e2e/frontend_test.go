package e2e_test

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	bkdockerfile "github.com/openbuildkit/buildkit/frontend/dockerfile"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// program compiles a package of this module for an image that holds nothing else.
func program(tb testing.TB, pkg, name, dir string) {
	tb.Helper()
	// The cache of the go command makes the second time quick.
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), pkg)
	cmd.Dir = harness.Root(tb)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(tb, err, "%s", out)
}

// pushFrontend has the daemon build an image of a frontend and push it, and returns its name.
func pushFrontend(tb testing.TB, d *harness.Daemon, r *harness.Registry, pkg string, lines ...string) string {
	tb.Helper()
	dir := dockerfile(tb, append([]string{"FROM scratch", "COPY frontend /", `ENTRYPOINT ["/frontend"]`}, lines...)...)
	program(tb, pkg, "frontend", dir)
	name := r.Host + "/frontends/" + filepath.Base(pkg) + ":1"
	d.Build(tb, dir, "--output=type=image,push=true,name="+name)
	return name
}

// gatewayArgs are the arguments of a build by a frontend that is an image.
func gatewayArgs(name string, more ...string) []string {
	return append([]string{"build", "--progress=plain", "--frontend=gateway.v0", "--opt=source=" + name}, more...)
}

func TestAFrontendIsAnImage(t *testing.T) {
	d, r := startWithRegistry(t, harness.DaemonOptions{})
	name := pushFrontend(t, d, r, "./hack/testfrontend",
		"WORKDIR /work", "ENV COLOUR=red", "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs")
	out := t.TempDir()

	t.Run("which gives a result", func(t *testing.T) {
		first := d.MustBuildctl(t, gatewayArgs(name, "--opt=who=you", toLocal(out))...)
		require.Equal(t, "hello, you\n", read(t, out, "hello"))
		require.Contains(t, first.Stderr, "resolve image config for docker-image://"+name)
		require.Contains(t, first.Stderr, "docker-image://"+name+"@sha256:")
		require.NotContains(t, first.Stderr, "frontend "+name, "it has said nothing")
		require.Empty(t, ran(d.MustBuildctl(t, gatewayArgs(name, "--opt=who=you", toLocal(out))...)))
	})
	t.Run("which a Dockerfile names", func(t *testing.T) {
		dir := dockerfile(t, "# syntax="+name+" and more", "whatever")
		d.Build(t, dir, toLocal(out))
		require.Equal(t, "hello, world\n", read(t, out, "hello"))
		d.Build(t, dockerfile(t, "FROM nowhere.invalid/base"), "--opt=build-arg:BUILDKIT_SYNTAX="+name, "--opt=who=arg", toLocal(out))
		require.Equal(t, "hello, arg\n", read(t, out, "hello"))
	})
	t.Run("which is told of its build", func(t *testing.T) {
		d.MustBuildctl(t, gatewayArgs(name, "--opt=mode=environment", "--opt=a:b=c=d", toLocal(out))...)
		var got struct {
			Args, Env []string
			Cwd       string
			Own       []byte
		}
		require.NoError(t, json.Unmarshal([]byte(read(t, out, "environment")), &got))
		require.Equal(t, []string{"/frontend"}, got.Args)
		require.Equal(t, "/work", got.Cwd)
		require.Subset(t, got.Env, []string{
			"COLOUR=red", "BUILDKIT_EXPORTEDPRODUCT=buildkit",
			"BUILDKIT_FRONTEND_OPT_0=a:b=c=d", "BUILDKIT_FRONTEND_OPT_1=mode=environment", "BUILDKIT_FRONTEND_OPT_2=source=" + name,
		})
		var workers []gateway.WorkerInfo
		for _, kv := range got.Env {
			if value, ok := strings.CutPrefix(kv, "BUILDKIT_WORKERS="); ok {
				require.NoError(t, json.Unmarshal([]byte(value), &workers))
			}
		}
		require.Len(t, workers, 1)
		require.NotEmpty(t, workers[0].Platforms)
		var own pb.Definition
		require.NoError(t, proto.Unmarshal(got.Own, &own))
		require.Contains(t, string(own.Def[0]), name+"@sha256:")
		// What it wrote into its tree has gone with it.
		d.MustBuildctl(t, gatewayArgs(name, "--opt=mode=environment", "--opt=again=1", toLocal(out))...)
	})
	t.Run("which has the network unless its label says no", func(t *testing.T) {
		d.MustBuildctl(t, gatewayArgs(name, "--opt=mode=network", toLocal(out))...)
		require.NotEqual(t, "1\n", read(t, out, "interfaces"))
		d.Build(t, dockerfile(t, "FROM "+name, "LABEL moby.buildkit.frontend.network.none=true"),
			"--output=type=image,push=true,name="+name+"-alone")
		d.MustBuildctl(t, gatewayArgs(name+"-alone", "--opt=mode=network", toLocal(out))...)
		require.Equal(t, "1\n", read(t, out, "interfaces"))
	})
	t.Run("which takes inputs", func(t *testing.T) {
		c, err := bkclient.New(d.Addr)
		require.NoError(t, err)
		defer c.Close()
		def, err := llb.Scratch().File(llb.Mkfile("/given", 0o644, []byte("input"))).Marshal(t.Context())
		require.NoError(t, err)
		_, err = c.Solve(t.Context(), nil, bkclient.SolveOpt{
			Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": name, "mode": "inputs"},
			FrontendInputs: map[string]*pb.Definition{"tree": def},
			Exports:        []bkclient.Export{{Type: "local", OutputDir: out}},
		})
		require.NoError(t, err)
		require.Equal(t, "input", read(t, out, "given"))
	})
	t.Run("which is not there", func(t *testing.T) {
		result := d.Buildctl(t, gatewayArgs(r.Host+"/frontends/absent:1")...)
		require.Equal(t, 1, result.Code)
		require.Equal(t, "failed to solve: failed to resolve source metadata for "+r.Host+"/frontends/absent:1: "+r.Host+"/frontends/absent:1: not found", errorMessage(t, result))
	})
	t.Run("which lacks what it is asked for", func(t *testing.T) {
		result := d.Buildctl(t, gatewayArgs(name, "--opt=requestid=frontend.targets")...)
		require.Equal(t, 1, result.Code)
		require.Equal(t, "failed to solve: unsupported frontend capability moby.buildkit.frontend.subrequests", errorMessage(t, result))
	})
	t.Run("or none", func(t *testing.T) {
		result := d.Buildctl(t, gatewayArgs("busybox")...)
		require.Equal(t, 1, result.Code)
		require.Contains(t, errorMessage(t, result), "failed to solve: exit code: 1")
		require.Contains(t, errorMessage(t, result), "/run", "the runtime says why")
	})
	d.RequireIdle(t)
}

// What a frontend does wrong ends the build that asked for it and nothing else.
func TestAFrontendThatFailsFailsItsBuildOnly(t *testing.T) {
	d, r := startWithRegistry(t, harness.DaemonOptions{Config: "[frontend.'gateway.v0']\nmaxMemory = '64MB'\nidleTimeout = '8s'\n"})
	name := pushFrontend(t, d, r, "./hack/testfrontend")
	all := map[string]string{
		"crash":    "exit code: 7:\nfirst words\n[31mlast words",
		"silent":   "no result for incomplete build",
		"error":    "the input is wrong",
		"bad-exit": "exit code: 1: testfrontend: ended badly after all was well",
		"garbage":  `frontend grpc server closed unexpectedly: its standard output is not gRPC but "hello, I print where I s"`,
		"chatty":   "testfrontend: said too much",
		"memory":   "cannot allocate memory",
		"hang":     "the frontend has asked for nothing for 8s and is given up",
		"stuck":    "the frontend has asked for nothing for 8s and is given up: now I wait",
	}
	t.Run("all", func(t *testing.T) {
		for mode, want := range all {
			t.Run(mode, func(t *testing.T) {
				t.Parallel()
				result := d.Buildctl(t, gatewayArgs(name, "--opt=mode="+mode)...)
				require.Equal(t, 1, result.Code)
				require.Contains(t, errorMessage(t, result), "failed to solve: ")
				require.Contains(t, errorMessage(t, result), want)
				require.Less(t, len(result.Stderr), 5<<20, "what is shown is bounded")
			})
		}
	})
	d.Build(t, dockerfile(t, "FROM busybox", "RUN true"))
	d.RequireIdle(t)
}

func TestAnInterruptedBuildEndsItsFrontend(t *testing.T) {
	d, r := startWithRegistry(t, harness.DaemonOptions{})
	name := pushFrontend(t, d, r, "./hack/testfrontend")
	c := launch(t, d, gatewayArgs(name, "--opt=mode=stuck")...)
	c.await(t, "now I wait")
	c.signal(t, syscall.SIGINT)
	require.Equal(t, 1, c.wait(t).Code)
	d.RequireIdle(t)
}

func TestOnlyAllowedRepositoriesAreFrontends(t *testing.T) {
	d := start(t, harness.DaemonOptions{Config: "[frontend.'gateway.v0']\nallowedRepositories = ['docker.io/library/allowed']\n"})
	for _, name := range []string{"busybox", "docker.io/library/busybox:latest"} {
		result := d.Buildctl(t, gatewayArgs(name)...)
		require.Equal(t, 1, result.Code)
		require.Equal(t, "failed to solve: '"+name+"' is not an allowed gateway source", errorMessage(t, result))
	}
	result := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "# syntax=busybox", "FROM busybox"))...)
	require.Contains(t, errorMessage(t, result), "'busybox' is not an allowed gateway source")
	require.Contains(t, d.Buildctl(t, gatewayArgs("allowed")...).Stderr, "library/allowed:latest: not found", "it is looked for")
}

// frontendLabels are those of the image of the Dockerfile frontend.
const frontendLabels = "LABEL moby.buildkit.frontend.network.none=true moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs," +
	"moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts,moby.buildkit.frontend.gitquerystring"

// The corpus of frontend/dockerfile is held to be the same without a daemon; here are a daemon and a
// container in between.
func TestTheDockerfileFrontendIsTheSameWhereverItRuns(t *testing.T) {
	d, r := startWithRegistry(t, harness.DaemonOptions{})
	name := pushFrontend(t, d, r, "./cmd/dockerfile-frontend", frontendLabels)
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()

	for title, test := range map[string]struct {
		dir  string
		opts map[string]string
		err  string
	}{
		"an example":  {dir: "../../examples/hello"},
		"a stage":     {dir: "../../examples/hello", opts: map[string]string{"target": "words"}},
		"heredocs":    {dir: dockerfile(t, "FROM busybox AS a", "RUN <<E", "echo one >/1", "E", "FROM scratch", "COPY --from=a /1 /", "COPY <<E /2", "two", "E")},
		"arguments":   {dir: dockerfile(t, "ARG BASE=nosuch", "FROM $BASE", "ARG X", "ENV X=$X", "RUN echo $X >/x"), opts: map[string]string{"build-arg:BASE": "busybox", "build-arg:X": "1"}},
		"two images":  {dir: dockerfile(t, "FROM scratch", "COPY Dockerfile /"), opts: map[string]string{"platform": "linux/amd64,linux/arm64"}},
		"a context":   {dir: dockerfile(t, "FROM base", "COPY --from=other Dockerfile /d"), opts: map[string]string{"context:base": "docker-image://busybox", "context:other": "local:context"}},
		"a mistake":   {dir: dockerfile(t, "FROM busybox", "FROB x"), err: "dockerfile parse error on line 2: unknown instruction: FROB"},
		"no image":    {dir: dockerfile(t, "FROM nosuch"), err: "docker.io/library/nosuch:latest: not found"},
		"a failure":   {dir: dockerfile(t, "FROM busybox", "RUN exit 3"), err: "exit code: 3"},
		"a forbidden": {dir: dockerfile(t, "FROM busybox", "RUN --security=insecure true"), err: "security.insecure is not allowed"},
	} {
		t.Run(title, func(t *testing.T) {
			opt := func(frontend string) bkclient.SolveOpt {
				attrs := map[string]string{"filename": "Dockerfile", "build-arg:SOURCE_DATE_EPOCH": "1700000000"}
				maps.Copy(attrs, test.opts)
				if frontend == "gateway.v0" {
					attrs["source"] = name
				}
				fs, err := fsutil.NewFS(test.dir)
				require.NoError(t, err)
				return bkclient.SolveOpt{
					Frontend: frontend, FrontendAttrs: attrs,
					LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs},
					Exports:     []bkclient.Export{{Type: "oci", Output: func(map[string]string) (io.WriteCloser, error) { return discard{}, nil }}},
				}
			}
			builtin, builtinErr := c.Solve(t.Context(), nil, opt("dockerfile.v0"))
			asImage, imageErr := c.Solve(t.Context(), nil, opt("gateway.v0"))
			onClient, clientErr := c.Build(t.Context(), opt(""), "buildkit", bkdockerfile.Build)
			if test.err != "" {
				require.ErrorContains(t, builtinErr, test.err)
				require.EqualError(t, imageErr, builtinErr.Error())
				require.ErrorContains(t, clientErr, test.err)
				require.Equal(t, sources(t, builtinErr), sources(t, imageErr))
				require.Equal(t, sources(t, builtinErr), sources(t, clientErr))
				return
			}
			require.NoError(t, builtinErr)
			require.NoError(t, imageErr)
			require.NoError(t, clientErr)
			const digest = "containerimage.digest"
			require.NotEmpty(t, builtin.ExporterResponse[digest])
			require.Equal(t, builtin.ExporterResponse[digest], asImage.ExporterResponse[digest])
			require.Equal(t, builtin.ExporterResponse[digest], onClient.ExporterResponse[digest])
		})
	}
	d.RequireIdle(t)
}

// sources returns the lines of files that an error shows.
func sources(t *testing.T, err error) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, status.PrintSources(&b, err))
	return b.String()
}

// discard is a file that nobody reads.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
