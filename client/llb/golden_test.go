package llb_test

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
)

const (
	busybox = "localhost:5057/library/busybox:latest@sha256:57c734033a7912668d85265f9d1d291773bf4414dec0137789157c1855a36c10"
	full    = "localhost:5057/library/full:latest@sha256:f5e711a5a110c75af5fb5f9a6d9f36e74d4b7d249980f467773e7d554aafb733"
	// defaultPath is the PATH of the images above.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// copyAll are the options of a COPY instruction.
var copyAll = []llb.CopyOption{
	llb.FollowSymlinks(), llb.CopyDirContents(), llb.CreateDestPath(),
	llb.AllowWildcard(), llb.AllowEmptyWildcard(),
}

func image(name string) llb.State {
	return llb.Image(name, llb.Platform(amd64)).AddEnv("PATH", defaultPath)
}

func run(s llb.State, line string, opts ...llb.RunOption) llb.State {
	return s.Run(llb.Shell(line), llb.RemoveMountStubsRecursive(), llb.RunOptions(opts...)).Root()
}

// The digests are those that existing builders give to the same ops: equal ones share cache.
func TestOpsHaveTheBytesThatOtherBuildersGiveThem(t *testing.T) {
	base := image(busybox)
	mkdirW := base.File(llb.Mkdir("/w", 0o755, llb.WithParents())).Dir("/w")
	mkdirSub := mkdirW.User("app").Dir("sub").
		File(llb.Mkdir("/w/sub", 0o755, llb.WithParents(), llb.WithOwner(llb.ParseOwner("app"))))
	touched := run(base, "touch /1")
	one := llb.Scratch().File(llb.Mkfile("/one", 0o644, []byte("A\n")))
	two := llb.Scratch().File(llb.Mkfile("/two", 0o644, []byte("B\n")))
	stage := llb.Scratch().File(llb.Copy(touched, "/1", "/", copyAll...))
	stage = stage.File(llb.Copy(run(touched, "touch /2"), "/2", "/", copyAll...))
	noNet := run(base, "true", llb.Network(pb.NetMode_NONE))
	hostNet := run(noNet, "true", llb.Network(pb.NetMode_HOST))

	for name, c := range map[string]struct {
		state  llb.State
		digest string
	}{
		"an image": {base, "sha256:6011e11596bd12678d9540ccc2bbe99b8d8690b95b7c82c98de5320873a14f93"},
		"a process": {
			run(base, "echo hi"),
			"sha256:bdcff2c8ce1f1794bae20e0c94c2d1cf8a257ebe831383c7541512800297bbd8",
		},
		"a process with more environment": {
			run(base.AddEnv("G", "1").AddEnv("L", "two").AddEnv("E", "two"), "echo $G $L"),
			"sha256:56d6a2a2fe48b136dd9510b296b86864529d3176ec39614f4348fb962aa94150",
		},
		"a process without network": {noNet, "sha256:4a7c34f2bc26a9a442e6130887fd27602dc85b070588c4e90b05aca01469e6c0"},
		"a process on the host's network": {
			hostNet, "sha256:12ee1d330d364791a5359320bdaf189fc3a5c28c6db6ae1cea73b439b0c6c84e",
		},
		"a privileged process": {
			run(hostNet, "true", llb.Security(pb.SecurityMode_INSECURE)),
			"sha256:5659caf4ea0f03672f51200d7b12e20695801faa58f3fb979d221fae100b4cb9",
		},
		"a process of a user in a directory": {
			run(mkdirSub, "pwd"),
			"sha256:292567e8538b47248f01f815d99ed9bd267e514e063e7dad655132eb647f3f5a",
		},
		"a directory":           {mkdirW, "sha256:35526fcfc02ef5fd9184c07557bc235a8ecfab9682c534ef045dd345f1922d16"},
		"a directory of a user": {mkdirSub, "sha256:22a94e46feebedfaccfb3a1bb2b1a18d17cba2300f3101495fc2dc463eeb134e"},
		"a directory of a number": {
			llb.Scratch().File(llb.Mkdir("/cache", 0o755, llb.WithOwner(llb.OwnerID(5, 0)))),
			"sha256:7fb29cd964882eb95af9f3bd2f840dca6c2367a41d606c313e609142f2f26bd7",
		},
		"a file": {one, "sha256:8fd904652029e51878863bfa24c12d3bae95f8c1cf8b72093f24e7547a2b34aa"},
		"a chain of copies": {
			base.File(llb.Copy(one, "one", "/dst/", llb.CreateDestPath()).Copy(two, "/two", "/dst/", llb.CreateDestPath())),
			"sha256:108b6db85a0fd61510354b812c971dc88210125f1f388bd488a618b6f5760b16",
		},
		"copies from several stages onto nothing": {
			stage.File(llb.Copy(image(full), "/srv", "/srv", copyAll...)),
			"sha256:013cb3385c637341011943e75c9cd82f317fe21c8f70e7dd96b8f16b7b87fcb9",
		},
		"an HTTP source": {
			llb.HTTP("http://localhost:1/f.tar", llb.Filename("f.tar"),
				llb.Checksum("sha256:0000000000000000000000000000000000000000000000000000000000000000")),
			"sha256:9f70faa408803fd0b088bfcdb0a959d94106f3acdf36f8b75d559f40bd0cf7bf",
		},
		"a git source": {
			llb.Git("https://localhost:1/r.git", llb.GitRef("main"), llb.GitSubdir("sub"), llb.KeepGitDir()),
			"sha256:dd4e06c846c58768711c43ebee547e2ee8daf8486e6d956b0e38871bc6c6ff43",
		},
	} {
		t.Run(name, func(t *testing.T) {
			def, err := c.state.Marshal(context.Background(), llb.Platform(amd64))
			require.NoError(t, err)
			n := len(def.Def)
			require.Equal(t, c.digest, digest.FromBytes(def.Def[n-2]).String())
		})
	}
}

func TestTheLastEntryNamesTheResult(t *testing.T) {
	def, err := image(busybox).Marshal(context.Background())
	require.NoError(t, err)
	require.Equal(t, "sha256:a48f453ab12a7", digest.FromBytes(def.Def[1]).String()[:20])
}
