package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

// remoteDaemon knows the times of what is remote: a commit of every repository, and files of
// servers unless their name says that the server tells no time.
type remoteDaemon struct {
	*daemon
	file string
}

const commit = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@example.com> 1600000000 +0200\n" +
	"committer B > C <b@example.com> 1700000001 -0700\n\ncommitter Not <x@example.com> 1 +0000\n"

func (d remoteDaemon) ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt gateway.ResolveOpt) (*gateway.SourceMeta, error) {
	switch {
	case strings.HasPrefix(op.Identifier, "git://"):
		if !opt.GitObject {
			return &gateway.SourceMeta{Op: op, Git: &gatewaypb.ResolveSourceGitResponse{}}, nil
		}
		return &gateway.SourceMeta{Op: op, Git: &gatewaypb.ResolveSourceGitResponse{CommitObject: []byte(commit)}}, nil
	case strings.HasPrefix(op.Identifier, "http"):
		resp := &gatewaypb.ResolveSourceHTTPResponse{}
		if !strings.Contains(op.Identifier, "silent") {
			resp.LastModified = timestamppb.New(time.Unix(1700000002, 0))
		}
		return &gateway.SourceMeta{Op: op, HTTP: resp}, nil
	}
	return d.daemon.ResolveSourceMeta(ctx, op, opt)
}

// Solve makes trees of urls that hold one file, and of the archive that this is.
func (d remoteDaemon) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	res, err := d.daemon.Solve(ctx, req)
	if err != nil || res.Ref == nil || d.file == "" {
		return res, err
	}
	t := res.Ref.(*tree)
	if len(t.def.GetDef()) == 2 && t.files == nil {
		t.files = map[string]string{"context": d.file}
	}
	if len(t.def.GetDef()) == 3 {
		res.Ref = dirTree{t}
	}
	return res, nil
}

// dirTree is an archive that was unpacked: directories are newer than what they hold.
type dirTree struct{ *tree }

func (dirTree) ReadDir(_ context.Context, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	now := time.Now().UnixNano()
	switch path.Clean(req.Path) {
	case "/":
		return []*fstypes.Stat{
			{Path: "Dockerfile", ModTime: 1700000003_500000000},
			{Path: "dir", Mode: uint32(fs.ModeDir | 0o755), ModTime: now},
		}, nil
	case "/dir":
		return []*fstypes.Stat{
			{Path: "new", ModTime: 1700000004_999999999},
			{Path: "empty", Mode: uint32(fs.ModeDir | 0o755), ModTime: now},
		}, nil
	}
	return nil, nil
}

func archive(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "Dockerfile", Size: 0, Mode: 0o644}))
	require.NoError(t, w.Close())
	return b.String()
}

func TestTheEpochIsTheTimeOfSomethingRemote(t *testing.T) {
	const build = "\nFROM scratch\nWORKDIR /x\n"
	for name, tc := range map[string]struct {
		file string
		opts map[string]string
		data string
		want string
	}{
		"a number":                         {file: build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "5"}, want: "5"},
		"nothing":                          {file: build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": ""}},
		"nothing, over a default":          {file: "ARG SOURCE_DATE_EPOCH=7" + build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": ""}},
		"a default":                        {file: "ARG SOURCE_DATE_EPOCH=7" + build, want: "7"},
		"a default made of arguments":      {file: "ARG N=1\nARG SOURCE_DATE_EPOCH=${N}8" + build, want: "18"},
		"a repository that a stage adds":   {file: "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://example.com/r.git#v1 /" + build, want: "1700000001"},
		"a file that a stage adds":         {file: "FROM scratch AS src\nARG V=1\nADD https://example.com/$V /" + build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "SRC"}, want: "1700000002"},
		"a context that is the client's":   {file: build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "context"}},
		"a context that is a repository":   {file: build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "context", "context": "https://example.com/r.git", "dockerfilekey": "dockerfile"}, want: "1700000001"},
		"an archive without a time":        {file: build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "context", "context": "https://example.com/silent.tar", "dockerfilekey": "dockerfile"}, data: archive(t), want: "1700000004"},
		"a file without a time":            {file: "FROM scratch AS src\nADD https://example.com/silent /" + build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "src"}, data: "no archive"},
		"several platforms, one asked for": {file: "FROM scratch AS src\nADD https://example.com/a /" + build, opts: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "src", "platform": "linux/arm64"}, want: "1700000002"},
	} {
		t.Run(name, func(t *testing.T) {
			d := remoteDaemon{newDaemon(tc.file, tc.opts), tc.data}
			if tc.opts == nil {
				d.opts.Opts = map[string]string{}
			}
			res, err := dockerfile.Build(t.Context(), d)
			require.NoError(t, err)
			require.Equal(t, tc.want, string(res.Metadata["source.date.epoch"]))
			ops := summarize(t, d.solved[len(d.solved)-1])
			if tc.want == "" {
				require.Contains(t, ops, `"mkdir":{"path":"/x","mode":493,"makeParents":true,"timestamp":-1}`)
			} else {
				require.Contains(t, ops, `"mkdir":{"path":"/x","mode":493,"makeParents":true,"timestamp":`+tc.want+`000000000}`)
			}
		})
	}
}

func TestEpochsThatCannotBe(t *testing.T) {
	for stage, want := range map[string]string{
		"FROM busybox AS src\nADD https://example.com/a /":                              "SOURCE_DATE_EPOCH stage must use FROM scratch",
		"FROM scratch AS src":                                                           "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
		"FROM scratch AS src\nADD file /":                                               "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
		"FROM scratch AS src\nADD https://a.example/a https://a.example/b /":            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
		"FROM scratch AS src\nADD https://a.example/a /\nADD https://a.example/b /":     "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
		"FROM scratch AS src\nCOPY a /":                                                 "SOURCE_DATE_EPOCH stage contains unsupported COPY instruction",
		"FROM scratch AS src\nADD https://a.example/a /\nENV A=1":                       "SOURCE_DATE_EPOCH stage contains unsupported ENV instruction",
		"FROM scratch AS other\nADD https://a.example/a /":                              "invalid SOURCE_DATE_EPOCH: src",
		"FROM scratch AS src\nARG A\nADD ${A:?missing} /":                               `failed to process "${A:?missing}": A: missing`,
		"FROM scratch AS one\nADD https://a.example/a /\nFROM one AS src\nARG WHATEVER": "SOURCE_DATE_EPOCH stage must use FROM scratch",
	} {
		d := remoteDaemon{newDaemon(stage+"\nFROM scratch\nWORKDIR /x\n", map[string]string{"build-arg:SOURCE_DATE_EPOCH": "src"}), ""}
		_, err := dockerfile.Build(t.Context(), d)
		require.EqualError(t, err, want, stage)
	}
}
