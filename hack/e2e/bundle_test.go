package e2e_test

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestARepositoryIsWrittenToABundleAndReadFromIt(t *testing.T) {
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	repo, dir := repository(t, map[string]string{"top.txt": "top", "sub/in.txt": "in"}, nil)
	head := git(t, dir, "rev-parse", "HEAD")
	out := t.TempDir()
	requireSolved(t, solve(t, d, marshal(t, llb.Git(repo, llb.GitRef("main"), llb.GitCheckoutBundle())), toLocal(out)))
	bundle := read(t, out, "bundle")

	lay := t.TempDir()
	dgst := digest.FromString(bundle)
	write(t, filepath.Join(lay, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	write(t, filepath.Join(lay, "index.json"), `{"schemaVersion":2,"manifests":[]}`)
	write(t, filepath.Join(lay, "blobs", "sha256", dgst.Encoded()), bundle)
	moved := marshal(t, llb.Git("https://nowhere.invalid/r.git", llb.GitRef("main"), llb.GitSubdir("sub"), llb.GitChecksum(head),
		llb.GitBundle("oci-layout+blob://lay@"+dgst.String())))
	requireSolved(t, solve(t, d, moved, toLocal(out), "--oci-layout=lay="+lay))
	require.Equal(t, "in", read(t, out, "in.txt"))
	failed := solve(t, d, moved, toLocal(out)).wait(t)
	require.NotZero(t, failed.Code, "another client has not got the file")
}

// Two builds of one definition, of different versions, at once.
func TestABuildOfAnOldVersionGetsTheModesOfThatVersion(t *testing.T) {
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	repo, _ := repository(t, map[string]string{"top.txt": "top"}, nil)
	definition := marshal(t, llb.Scratch().File(llb.Copy(llb.Git(repo, llb.GitRef("main")), "/top.txt", "/copied.txt")))
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	modes := func(version int64) int64 {
		var archive bytes.Buffer
		_, err := c.Solve(t.Context(), definition, bkclient.SolveOpt{
			CompatibilityVersion: version,
			Exports: []bkclient.Export{{Type: "tar", Output: func(map[string]string) (io.WriteCloser, error) {
				return unclosed{&archive}, nil
			}}},
		})
		if err != nil {
			t.Error(err)
			return 0
		}
		header, err := tar.NewReader(&archive).Next()
		if err != nil {
			t.Error(err)
			return 0
		}
		return header.Mode
	}
	old := make(chan int64, 1)
	go func() { old <- modes(10) }()
	require.EqualValues(t, 0o644, modes(0))
	require.EqualValues(t, 0o666, <-old)
	require.EqualValues(t, 0o644, modes(20))
	require.EqualValues(t, 0o666, modes(10))
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
