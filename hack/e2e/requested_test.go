package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	buildkit "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// warnings returns the warnings that rawjson tells of, each after the name of its vertex.
func warnings(t *testing.T, r harness.Result) []string {
	t.Helper()
	all := []string{}
	names := vertexes(t, r)
	for decoder := json.NewDecoder(strings.NewReader(r.Stderr)); ; {
		var message struct {
			Warnings []struct {
				Vertex digest.Digest
				Short  []byte
			}
		}
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		for _, w := range message.Warnings {
			all = append(all, names[w.Vertex].Name+": "+string(w.Short))
		}
	}
}

func TestAResultThatIsForOtherPlatformsThanRequestedGetsAWarning(t *testing.T) {
	t.Parallel()
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	definition := marshal(t, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("f"))))
	dir := dockerfile(t, "FROM scratch", "COPY Dockerfile /")
	tarball := "--output=type=tar,dest=" + filepath.Join(t.TempDir(), "out.tar")
	ofDockerfile := func(more ...string) harness.Result {
		args := append(harness.DockerfileArgs(dir, more...), "--progress=rawjson")
		return d.MustBuildctl(t, args...)
	}

	require.Equal(t, []string{`Verifying build result: Requested platform "linux/s390x" does not match result platform "linux/amd64"`},
		warnings(t, requireSolved(t, solve(t, d, definition, "--opt=platform=linux/s390x"))))
	require.Equal(t, []string{`exporting to client tarball: Multiple platforms requested but result is not multi-platform`},
		warnings(t, requireSolved(t, solve(t, d, definition, "--opt=platform=linux/s390x,linux/amd64", tarball))))
	require.Empty(t, warnings(t, requireSolved(t, solve(t, d, definition, "--opt=platform=linux/amd64"))))
	// The frontend does as it is told.
	require.Empty(t, warnings(t, ofDockerfile("--opt=platform=linux/s390x")))
	require.Empty(t, warnings(t, ofDockerfile("--opt=platform=linux/s390x,linux/arm64", tarball)))
	require.Empty(t, warnings(t, ofDockerfile()))
}

func TestSeveralTreesWithoutTheirPlatformsAreAnError(t *testing.T) {
	t.Parallel()
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	c, err := buildkit.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	definition := marshal(t, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("f"))))
	build := func(requested string, n int) error {
		opt := buildkit.SolveOpt{FrontendAttrs: map[string]string{"platform": requested}}
		_, err := c.Build(t.Context(), opt, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			one, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition})
			if err != nil {
				return nil, err
			}
			res := &gateway.Result{}
			for _, id := range []string{"a", "b"}[:n] {
				res.AddRef(id, one.Ref)
			}
			return res, nil
		})
		return err
	}
	require.ErrorContains(t, build("linux/amd64", 2), "build result contains multiple refs without platforms mapping")
	require.NoError(t, build("", 2))
	require.NoError(t, build("linux/amd64", 1))
}
