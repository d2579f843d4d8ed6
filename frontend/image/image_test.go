package image_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/frontend/image"
)

// daemon is a bridge that has one image, whose program is a function.
type daemon struct {
	gateway.Client
	opts   map[string]string
	inputs map[string]*pb.Definition
	// config is that of the image, as JSON.
	config  string
	digest  digest.Digest
	program func(ctx context.Context, p frontend.Program) error

	ran      frontend.Program
	resolved []string
	solved   []gateway.SolveRequest
}

type tree struct {
	gateway.Reference
	def *pb.Definition
}

func (t *tree) Definition() *pb.Definition { return t.def }

func (t *tree) ReadFile(context.Context, gateway.ReadRequest) ([]byte, error) {
	return nil, os.ErrNotExist
}

func (d *daemon) BuildOpts() gateway.BuildOpts {
	return gateway.BuildOpts{
		Opts: d.opts, SessionID: "session", Product: "product",
		Workers: []gateway.WorkerInfo{{ID: "w", Platforms: []ocispec.Platform{{OS: "linux", Architecture: "riscv64"}}}},
	}
}

func (d *daemon) Inputs(context.Context) (map[string]*pb.Definition, error) { return d.inputs, nil }

func (d *daemon) ResolveSourceMeta(_ context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	d.resolved = append(d.resolved, op.Identifier+" "+opt.Platform.Architecture)
	return &gateway.SourceMeta{Op: op, Image: &gateway.ImageMeta{Digest: d.digest, Config: []byte(d.config)}}, nil
}

func (d *daemon) Solve(_ context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	d.solved = append(d.solved, req)
	if req.Frontend != "" {
		return &gateway.Result{}, nil
	}
	return &gateway.Result{Ref: &tree{def: req.Definition}}, nil
}

func (d *daemon) RunProgram(ctx context.Context, p frontend.Program) error {
	d.ran = p
	return d.program(ctx, p)
}

// start returns a daemon with the image example.com/fe:1 and a program.
func start(program func(ctx context.Context, p frontend.Program) error) *daemon {
	return &daemon{
		opts:    map[string]string{"source": "example.com/fe:1"},
		config:  `{"config":{"Entrypoint":["/fe","x"],"Env":["A=b"],"WorkingDir":"/w"}}`,
		digest:  digest.FromString("image"),
		program: program,
	}
}

// serving is a program that speaks the gateway API.
func serving(build gateway.BuildFunc) func(context.Context, frontend.Program) error {
	return func(ctx context.Context, p frontend.Program) error {
		return gateway.Serve(ctx, io.NopCloser(p.Stdin), nopCloser{p.Stdout}, p.Env, build)
	}
}

// nopCloser is a stream that a runtime keeps open until the program ends.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func empty(context.Context, gateway.Client) (*gateway.Result, error) { return nil, nil }

func TestAProgramIsRunAsItsImageSays(t *testing.T) {
	d := start(serving(func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		def, err := llb.Scratch().File(llb.Mkfile("/f", 0o600, []byte(c.BuildOpts().Opts["word"]))).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := c.Solve(ctx, gateway.SolveRequest{Definition: def})
		if err != nil {
			return nil, err
		}
		res.SetMeta("who", []byte(c.BuildOpts().SessionID+" "+c.BuildOpts().Product+" "+c.BuildOpts().Workers[0].Platforms[0].Architecture))
		return res, nil
	}))
	d.opts["word"] = "a=b c"
	res, err := image.New(image.Config{MaxMemory: 1 << 20}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, "session product riscv64", string(res.Metadata["who"]))
	made := d.solved[len(d.solved)-1].Definition
	require.Equal(t, made, res.Ref.Definition())
	require.Contains(t, string(made.Def[0]), "a=b c")

	require.Equal(t, []string{"docker-image://example.com/fe:1 riscv64"}, d.resolved)
	var op pb.Op
	require.NoError(t, proto.Unmarshal(d.solved[0].Definition.Def[0], &op))
	require.Equal(t, "docker-image://example.com/fe:1@"+d.digest.String(), op.GetSource().GetIdentifier())
	require.Equal(t, map[string]string{"image.recordtype": "frontend"}, op.GetSource().GetAttrs())
	require.Equal(t, "riscv64", op.GetPlatform().GetArchitecture())

	p := d.ran
	require.Equal(t, "example.com/fe:1", p.Name)
	require.Equal(t, []string{"/fe", "x"}, p.Args)
	require.Equal(t, "/w", p.Cwd)
	require.False(t, p.NoNetwork)
	require.EqualValues(t, 1<<20, p.MaxMemory)
	require.Equal(t, []string{
		"A=b",
		"BUILDKIT_FRONTEND_OPT_0=source=example.com/fe:1", "BUILDKIT_FRONTEND_OPT_1=word=a=b c",
		"BUILDKIT_SESSION_ID=session",
		`BUILDKIT_WORKERS=[{"id":"w","labels":null,"platforms":[{"architecture":"riscv64","os":"linux"}]}]`,
		"BUILDKIT_EXPORTEDPRODUCT=product",
	}, p.Env)
	var own pb.Definition
	require.NoError(t, proto.Unmarshal(p.Files["/run/config/buildkit/metadata/frontend.bin"], &own))
	require.True(t, proto.Equal(d.solved[0].Definition, &own))
}

func TestAnImageWithoutAnEntrypointIsRunAllTheSame(t *testing.T) {
	d := start(serving(empty))
	d.config = `{"config":{"Cmd":["sh"],"Labels":{"moby.buildkit.frontend.network.none":"true"}}}`
	res, err := image.New(image.Config{}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Nil(t, res.Ref)
	require.Equal(t, []string{"/run"}, d.ran.Args)
	require.Equal(t, "/", d.ran.Cwd)
	require.True(t, d.ran.NoNetwork)
}

func TestOptionsThatNameNoFrontend(t *testing.T) {
	for name, test := range map[string]struct {
		opts map[string]string
		cfg  image.Config
		err  string
		code codes.Code
	}{
		"no source": {err: "no source specified for gateway", code: codes.InvalidArgument},
		"development": {
			opts: map[string]string{"source": "fe", "gateway-devel": "true"},
			err:  "development gateway is no longer supported", code: codes.InvalidArgument,
		},
		"no reference": {
			opts: map[string]string{"source": "Not A Ref"},
			err:  `invalid frontend image "Not A Ref": invalid reference format`, code: codes.InvalidArgument,
		},
		"another repository": {
			opts: map[string]string{"source": "docker.io/evil/dockerfile:1"},
			cfg:  image.Config{AllowedRepositories: []string{"docker/dockerfile", "evil/dockerfile2"}},
			err:  "'docker.io/evil/dockerfile:1' is not an allowed gateway source", code: codes.PermissionDenied,
		},
		"a context that is another repository": {
			opts: map[string]string{"source": "docker/dockerfile", "context:docker/dockerfile": "docker-image://evil/dockerfile"},
			cfg:  image.Config{AllowedRepositories: []string{"docker/dockerfile"}},
			err:  "'docker/dockerfile' is not an allowed gateway source", code: codes.PermissionDenied,
		},
		"a context that is no image": {
			opts: map[string]string{"source": "docker/dockerfile", "context:docker/dockerfile": "https://example.com/x.git"},
			cfg:  image.Config{AllowedRepositories: []string{"docker/dockerfile"}},
			err:  "'docker/dockerfile' is not an allowed gateway source", code: codes.PermissionDenied,
		},
		"an option that is no variable": {
			opts: map[string]string{"source": "fe", "a": "b\x00c"},
			err:  `option "a" cannot be passed to a program`, code: codes.InvalidArgument,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(func(context.Context, frontend.Program) error { return errors.New("it was run") })
			d.opts = test.opts
			_, err := image.New(test.cfg).Build(t.Context(), d)
			require.ErrorContains(t, err, test.err)
			require.Equal(t, test.code, status.Code(err))
		})
	}
}

func TestAllowedRepositoriesAreRun(t *testing.T) {
	cfg := image.Config{AllowedRepositories: []string{"docker.io/docker/dockerfile"}}
	for _, opts := range []map[string]string{
		{"source": "docker/dockerfile:1.7"},
		{"source": "docker.io/docker/dockerfile@" + digest.FromString("x").String()},
		{"source": "mine", "context:mine": "docker-image://docker/dockerfile:1.9"},
	} {
		d := start(serving(empty))
		d.opts = opts
		_, err := image.New(cfg).Build(t.Context(), d)
		require.NoError(t, err, "%v", opts)
	}
}

func TestTheBuiltinFrontendIsASource(t *testing.T) {
	d := start(serving(empty))
	d.opts = map[string]string{"source": "dockerfile.v0", "target": "x"}
	d.inputs = map[string]*pb.Definition{"context": {Def: [][]byte{{1}}}}
	_, err := image.New(image.Config{}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []gateway.SolveRequest{{
		Frontend: "dockerfile.v0", FrontendOpt: map[string]string{"target": "x"}, FrontendInputs: d.inputs,
	}}, d.solved)

	for _, more := range []map[string]string{
		{"cmdline": "dockerfile.v0"},
		{"context:dockerfile.v0": "docker-image://other"},
		{"context:dockerfile.v0::linux/riscv64": "docker-image://other"},
	} {
		d := start(serving(empty))
		d.opts = map[string]string{"source": "dockerfile.v0"}
		for k, v := range more {
			d.opts[k] = v
		}
		_, err := image.New(image.Config{}).Build(t.Context(), d)
		require.NoError(t, err)
		require.NotEmpty(t, d.ran.Args, "%v is an image", more)
	}
}

func TestANamedContextIsRunInPlaceOfAnImage(t *testing.T) {
	d := start(serving(empty))
	d.opts = map[string]string{"source": "docker/dockerfile:1", "context:docker/dockerfile:1": "local:dev"}
	_, err := image.New(image.Config{}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"/run"}, d.ran.Args, "a folder has no config")
	require.Empty(t, d.resolved)

	d = start(serving(empty))
	def, err := llb.Scratch().File(llb.Mkfile("/fe", 0o755, nil)).Marshal(t.Context())
	require.NoError(t, err)
	d.inputs = map[string]*pb.Definition{"made": def}
	d.config = `{"config":{"Labels":{"moby.buildkit.frontend.caps":"moby.buildkit.frontend.inputs"}}}`
	d.opts = map[string]string{
		"source": "dev", "context:dev": "input:made",
		"input-metadata:made": `{"containerimage.config":"` + "eyJjb25maWciOnsiRW50cnlwb2ludCI6WyIvZmUiXSwiTGFiZWxzIjp7Im1vYnkuYnVpbGRraXQuZnJvbnRlbmQuY2FwcyI6Im1vYnkuYnVpbGRraXQuZnJvbnRlbmQuaW5wdXRzIn19fQ==" + `"}`,
	}
	_, err = image.New(image.Config{}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"/fe"}, d.ran.Args)
}

func TestCapabilitiesThatTheImageLacks(t *testing.T) {
	const inputs, contexts = "moby.buildkit.frontend.inputs", "moby.buildkit.frontend.contexts"
	old := digest.Digest("sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4")
	for name, test := range map[string]struct {
		label, required string
		inputs          bool
		digest          digest.Digest
		lacks           string
	}{
		"nothing is asked":           {},
		"what it has":                {label: inputs + ", " + contexts, required: contexts},
		"more than its name":         {label: contexts + "+experimental", required: contexts + "+forward"},
		"what it has not":            {label: inputs, required: inputs + "," + contexts, lacks: contexts},
		"not even to pass it on":     {label: inputs, required: "moby.buildkit.frontend.later+forward", lacks: "moby.buildkit.frontend.later"},
		"inputs":                     {inputs: true, lacks: inputs},
		"inputs that it takes":       {inputs: true, label: inputs},
		"inputs of before the label": {inputs: true, digest: old},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(serving(empty))
			d.config = `{"config":{"Labels":{"moby.buildkit.frontend.caps":"` + test.label + `"}}}`
			d.opts["frontend.caps"] = test.required
			if test.digest != "" {
				d.digest = test.digest
			}
			if test.inputs {
				d.inputs = map[string]*pb.Definition{"in": {}}
			}
			_, err := image.New(image.Config{}).Build(t.Context(), d)
			if test.lacks == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, "unsupported frontend capability "+test.lacks)
			require.Equal(t, codes.Unimplemented, status.Code(err))
			var missing *status.FrontendCapError
			require.ErrorAs(t, err, &missing)
		})
	}
}

func TestTheEndOfAProgramIsTheEndOfItsBuild(t *testing.T) {
	exit := func(code uint32) error { return &status.ExitError{Code: code} }
	says := func(words string, err error) func(context.Context, frontend.Program) error {
		return func(_ context.Context, p frontend.Program) error {
			_, _ = io.WriteString(p.Stderr, words)
			return err
		}
	}
	wrong := errors.New("the input is wrong")
	for name, test := range map[string]struct {
		program func(context.Context, frontend.Program) error
		err     string // a result if empty
	}{
		"without a word":   {program: says("", exit(3)), err: "exit code: 3"},
		"with one":         {program: says("bad\x1b[31m news\n", exit(3)), err: "exit code: 3: bad[31m news"},
		"with some":        {program: says("first\nsecond\n", exit(3)), err: "exit code: 3:\nfirst\nsecond"},
		"without a result": {program: says("", nil), err: "no result for incomplete build"},
		"of a result and a failure": {
			program: func(ctx context.Context, p frontend.Program) error {
				if err := serving(empty)(ctx, p); err != nil {
					return err
				}
				return exit(4)
			},
			err: "exit code: 4",
		},
		"of an error and a failure": {
			program: func(ctx context.Context, p frontend.Program) error {
				_ = serving(func(context.Context, gateway.Client) (*gateway.Result, error) { return nil, wrong })(ctx, p)
				return exit(5)
			},
			err: "the input is wrong",
		},
		"of a panic in its own call": {
			program: serving(func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
				// The daemon of the test has no such method.
				return nil, c.Warn(ctx, digest.FromString("v"), "w", gateway.WarnOpt{})
			}),
			err: "/moby.buildkit.v1.frontend.LLBBridge/Warn: panic: runtime error: invalid memory address or nil pointer dereference",
		},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := image.New(image.Config{}).Build(t.Context(), start(test.program))
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.NotNil(t, res)
		})
	}
}

func TestLastWordsAreTheLastOfMany(t *testing.T) {
	d := start(func(_ context.Context, p frontend.Program) error {
		for range 10_000 {
			_, _ = io.WriteString(p.Stderr, strings.Repeat("x", 100)+"\n")
		}
		_, _ = io.WriteString(p.Stderr, "the last\n")
		return &status.ExitError{Code: 1}
	})
	_, err := image.New(image.Config{}).Build(t.Context(), d)
	require.ErrorContains(t, err, "x\nthe last")
	require.Less(t, len(err.Error()), 5000)
}

// killed is a program that does something and then waits until it is killed.
func killed(do func(ctx context.Context, p frontend.Program)) func(context.Context, frontend.Program) error {
	return func(ctx context.Context, p frontend.Program) error {
		// A runtime reads ahead.
		go func() { _, _ = io.Copy(io.Discard, p.Stdin) }()
		do(ctx, p)
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

func TestAProgramThatDoesNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(killed(func(_ context.Context, p frontend.Program) { _, _ = io.WriteString(p.Stderr, "hm") }))
		_, err := image.New(image.Config{}).Build(t.Context(), d)
		require.EqualError(t, err, "the frontend has asked for nothing for 15m0s and is given up: hm")
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	})
}

func TestAProgramThatWaitsForTheDaemonIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(serving(func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			_, err := c.Solve(ctx, gateway.SolveRequest{Frontend: "slow"})
			return nil, err
		}))
		slow := &slowDaemon{daemon: d, wait: 3 * image.DefaultIdleTimeout}
		_, err := image.New(image.Config{}).Build(t.Context(), slow)
		require.NoError(t, err)
	})
}

type slowDaemon struct {
	*daemon
	wait time.Duration
}

func (d *slowDaemon) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if req.Frontend == "slow" {
		<-time.After(d.wait)
	}
	return d.daemon.Solve(ctx, req)
}

func TestAProgramThatLingersIsEnded(t *testing.T) {
	for name, test := range map[string]struct {
		build gateway.BuildFunc
		err   string
	}{
		"with a result": {build: empty},
		"with an error": {build: func(context.Context, gateway.Client) (*gateway.Result, error) { return nil, errors.New("wrong") }, err: "wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(func(ctx context.Context, p frontend.Program) error {
					_ = serving(test.build)(ctx, p)
					<-ctx.Done()
					return context.Cause(ctx)
				})
				res, err := image.New(image.Config{}).Build(t.Context(), d)
				if test.err != "" {
					require.EqualError(t, err, test.err)
					return
				}
				require.NoError(t, err)
				require.NotNil(t, res)
			})
		})
	}
}

func TestAProgramThatSpeaksNonsenseIsEnded(t *testing.T) {
	d := start(killed(func(_ context.Context, p frontend.Program) {
		_, _ = io.WriteString(p.Stdout, "Hello, I am a frontend and print this\n")
	}))
	_, err := image.New(image.Config{}).Build(t.Context(), d)
	require.EqualError(t, err, `frontend grpc server closed unexpectedly: its standard output is not gRPC but "Hello, I am a frontend a"`)
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestABuildThatIsCancelledEndsItsProgram(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the user went home")
	d := start(killed(func(context.Context, frontend.Program) { cancel(reason) }))
	_, err := image.New(image.Config{}).Build(ctx, d)
	require.ErrorIs(t, err, reason)
}

func TestFrontendsThatAreImagesNeedARunner(t *testing.T) {
	d := start(nil)
	_, err := image.New(image.Config{}).Build(t.Context(), struct{ gateway.Client }{d})
	require.EqualError(t, err, "frontends that are images run in the daemon only")
}

// A program may end the moment it has sent what it returns.
func TestWhatAProgramReturnsLastIsTaken(t *testing.T) {
	d := start(func(ctx context.Context, p frontend.Program) error {
		return gateway.Serve(ctx, io.NopCloser(iotest.OneByteReader(p.Stdin)), nopCloser{p.Stdout}, os.Environ(), empty)
	})
	res, err := image.New(image.Config{}).Build(t.Context(), d)
	require.NoError(t, err)
	require.Nil(t, res.Ref)
}

func TestMessagesOnTheirWayAreBounded(t *testing.T) {
	large := &pb.Definition{Def: [][]byte{make([]byte, 15<<20)}}
	// calls makes so many calls at once, whose messages come side by side.
	calls := func(n int) func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			var eg errgroup.Group
			for range n {
				eg.Go(func() error {
					_, err := c.Solve(ctx, gateway.SolveRequest{Definition: large})
					return err
				})
			}
			return nil, eg.Wait()
		}
	}
	f := image.New(image.Config{})
	for range 3 {
		_, err := f.Build(t.Context(), start(serving(calls(8))))
		require.NoError(t, err, "what has arrived counts no more")
	}
	_, err := f.Build(t.Context(), start(func(ctx context.Context, p frontend.Program) error {
		ended := make(chan error, 1)
		go func() { ended <- serving(calls(40))(t.Context(), p) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done(): // as a runtime ends it, without asking
			return context.Cause(ctx)
		}
	}))
	require.ErrorContains(t, err, "the frontend has messages of more than 256 MiB on their way")
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = f.Build(t.Context(), start(serving(calls(8))))
	require.NoError(t, err, "nothing is left of it")
}
