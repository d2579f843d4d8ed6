package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// The parts of bad definitions.

func busybox() *pb.Op {
	return source("docker-image://docker.io/library/busybox:latest")
}

func source(identifier string) *pb.Op {
	return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: identifier}}}
}

// run is a process in the tree of input, changed by what change does to it.
func run(input *pb.Input, change func(*pb.ExecOp)) *pb.Op {
	exec := &pb.ExecOp{
		Meta:   &pb.Meta{Args: []string{"/bin/true"}, Cwd: "/"},
		Mounts: []*pb.Mount{{Input: 0, Dest: "/", Output: 0}},
	}
	change(exec)
	return &pb.Op{Inputs: []*pb.Input{input}, Op: &pb.Op_Exec{Exec: exec}}
}

func file(inputs []*pb.Input, actions ...*pb.FileAction) *pb.Op {
	return &pb.Op{Inputs: inputs, Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
}

// mkdir makes a directory in a new tree.
func mkdir(path string) *pb.FileAction {
	return &pb.FileAction{Input: -1, SecondaryInput: -1, Output: 0, Action: &pb.FileAction_Mkdir{
		Mkdir: &pb.FileActionMkDir{Path: path, Mode: 0o755, Timestamp: -1},
	}}
}

// badDefinition is one that has to fail; want is what the error has to say, in any letters.
type badDefinition struct {
	name string
	make func(d *definition) *pb.Definition
	want string
}

// badExec is a bad definition of a process.
func badExec(name, want string, change func(*pb.ExecOp)) badDefinition {
	return badDefinition{name: name, want: want, make: func(d *definition) *pb.Definition {
		return d.end(d.add(run(d.add(busybox()), change)))
	}}
}

// badFile is a bad definition of one file operation on a new tree.
func badFile(name, want string, change func(*pb.FileAction)) badDefinition {
	return badDefinition{name: name, want: want, make: func(d *definition) *pb.Definition {
		action := mkdir("/x")
		change(action)
		return d.end(d.add(file(nil, action)))
	}}
}

// badSource is a bad definition of a source.
func badSource(name, want, identifier string) badDefinition {
	return badDefinition{name: name, want: want, make: func(d *definition) *pb.Definition {
		return d.end(d.add(source(identifier)))
	}}
}

func badGraphs() []badDefinition {
	return []badDefinition{
		{"an op that is no protobuf", func(d *definition) *pb.Definition { return d.end(d.addBytes([]byte("\xff\xff\xffnonsense"))) }, "op"},
		{"an empty op", func(d *definition) *pb.Definition { return d.end(d.add(&pb.Op{})) }, "no support for <nil>"},
		{"an op of no bytes", func(d *definition) *pb.Definition { return d.end(d.addBytes(nil)) }, ""},
		// Field 99, a message.
		{"an op of a kind that is not known", func(d *definition) *pb.Definition { return d.end(d.addBytes([]byte{0x9a, 0x06, 0x00})) }, "no support for <nil>"},
		{"no result", func(d *definition) *pb.Definition {
			d.add(file(nil, mkdir("/x")))
			return d.Definition
		}, ""},
		{"a result that is not there", func(d *definition) *pb.Definition {
			d.add(file(nil, mkdir("/x")))
			return d.end(&pb.Input{Digest: "sha256:" + strings.Repeat("0", 64)})
		}, "digest"},
		{"a digest that is none", func(d *definition) *pb.Definition {
			d.add(file(nil, mkdir("/x")))
			return d.end(&pb.Input{Digest: "../../etc"})
		}, ""},
		{"an output that is out of range", func(d *definition) *pb.Definition {
			input := d.add(file(nil, mkdir("/x")))
			input.Index = 7
			return d.end(input)
		}, "index"},
		{"an output before the first", func(d *definition) *pb.Definition {
			input := d.add(file(nil, mkdir("/x")))
			input.Index = -1
			return d.end(input)
		}, "index"},
		{"an output beyond all numbers", func(d *definition) *pb.Definition {
			input := d.add(file(nil, mkdir("/x")))
			input.Index = 1 << 62
			return d.end(input)
		}, "index"},
		{"a capability that is not known", func(d *definition) *pb.Definition {
			input := d.add(file(nil, mkdir("/x")))
			d.Metadata[input.Digest] = &pb.OpMetadata{Caps: map[string]bool{"exec.teleport": true}}
			return d.end(input)
		}, "unknown API capability exec.teleport"},
		{"a merge of an input that it does not have", func(d *definition) *pb.Definition {
			merge := &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}, {Input: 9}}}
			return d.end(d.add(&pb.Op{Inputs: []*pb.Input{d.add(file(nil, mkdir("/x")))}, Op: &pb.Op_Merge{Merge: merge}}))
		}, "invalid merge input index 9"},
		{"a merge of merges of merges", func(d *definition) *pb.Definition {
			in := d.add(file(nil, mkdir("/x")))
			for range 60 {
				merge := &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}, {Input: 1}}}
				in = d.add(&pb.Op{Inputs: []*pb.Input{in, in}, Op: &pb.Op_Merge{Merge: merge}})
			}
			return d.end(in)
		}, "more than 65536"},
		{"an op whose input is not there", func(d *definition) *pb.Definition {
			return d.end(d.add(run(&pb.Input{Digest: "sha256:" + strings.Repeat("1", 64)}, func(*pb.ExecOp) {})))
		}, "digest"},
	}
}

func badExecs() []badDefinition {
	return []badDefinition{
		badExec("a process without arguments", "invalid exec op with no args", func(e *pb.ExecOp) { e.Meta.Args = nil }),
		badExec("a process without settings", "invalid exec op with no meta", func(e *pb.ExecOp) { e.Meta = nil }),
		badExec("a process without mounts", "invalid exec op with no mounts", func(e *pb.ExecOp) { e.Mounts = nil }),
		badExec("a process without a root", "invalid exec op with no rootfs", func(e *pb.ExecOp) { e.Mounts[0].Dest = "/elsewhere" }),
		badExec("an empty mount", "", func(e *pb.ExecOp) { e.Mounts = append(e.Mounts, nil) }),
		badExec("a mount of an input that is not there", "input", func(e *pb.ExecOp) { e.Mounts[0].Input = 4 }),
		badExec("a mount of a kind that is not known", "mount", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: -1, Output: -1, Dest: "/m", MountType: 77})
		}),
		badExec("a mount whose source leaves the tree", "", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: 0, Output: -1, Dest: "/m", Selector: "../../../../nosuch"})
		}),
		badExec("a cache mount that is a path", "", func(e *pb.ExecOp) {
			e.Meta.Args = []string{"/bin/test", "-e", "/m/passwd"}
			e.Mounts = append(e.Mounts, &pb.Mount{
				Input: -1, Output: -1, Dest: "/m", MountType: pb.MountType_CACHE,
				CacheOpt: &pb.CacheOpt{ID: "../../../../../../../etc"},
			})
		}),
		badExec("a cache mount without an id", "", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: -1, Output: -1, Dest: "/m", MountType: pb.MountType_CACHE})
		}),
		badExec("a secret without an id", "", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: -1, Output: -1, Dest: "/m", MountType: pb.MountType_SECRET})
		}),
		badExec("a secret that nobody has", "secret absent: not found", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{
				Input: -1, Output: -1, Dest: "/m", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "absent"},
			})
		}),
		badExec("a secret variable that nobody has", "secret absent: not found", func(e *pb.ExecOp) {
			e.Secretenv = []*pb.SecretEnv{{ID: "absent", Name: "X"}}
		}),
		badExec("an agent that nobody has", "ssh", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{
				Input: -1, Output: -1, Dest: "/m", MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "absent"},
			})
		}),
		badExec("two mounts for one output", "", func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Input: -1, Output: 0, Dest: "/m"})
		}),
		badExec("outputs with a gap", "", func(e *pb.ExecOp) { e.Mounts[0].Output = 1 << 40 }),
		badExec("a network mode that is not known", "network", func(e *pb.ExecOp) { e.Network = 77 }),
		badExec("a security mode that is not known", "security", func(e *pb.ExecOp) { e.Security = 77 }),
		badExec("the host's network, not granted", "network.host is not allowed", func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST }),
		badExec("no sandbox, not granted", "security.insecure is not allowed", func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE }),
		badExec("a program that is not there", "nosuch", func(e *pb.ExecOp) { e.Meta.Args = []string{"/nosuch"} }),
		badExec("an argument with a zero byte", "", func(e *pb.ExecOp) { e.Meta.Args = []string{"/bin/true\x00"} }),
		badExec("a user who is not there", "nosuch", func(e *pb.ExecOp) { e.Meta.User = "nosuch" }),
		badExec("a limit that is not known", "nosuch", func(e *pb.ExecOp) { e.Meta.Ulimit = []*pb.Ulimit{{Name: "nosuch"}} }),
		badExec("a host that is no address", "nonsense", func(e *pb.ExecOp) { e.Meta.ExtraHosts = []*pb.HostIP{{Host: "h", IP: "nonsense"}} }),
	}
}

func badFiles() []badDefinition {
	return []badDefinition{
		{"a file op without actions", func(d *definition) *pb.Definition { return d.end(d.add(file(nil))) }, "invalid file op with no actions"},
		{"an empty action", func(d *definition) *pb.Definition { return d.end(d.add(file(nil, nil))) }, ""},
		badFile("an action of no kind", "", func(a *pb.FileAction) { a.Action = nil }),
		badFile("an action on an input that is not there", "input", func(a *pb.FileAction) { a.Input = 9 }),
		badFile("an action on an input before none", "input", func(a *pb.FileAction) { a.Input = -9 }),
		badFile("an action without outputs", "no outputs specified", func(a *pb.FileAction) { a.Output = -1 }),
		badFile("an action with an output out of range", "", func(a *pb.FileAction) { a.Output = 1 << 40 }),
		{"two actions for one output", func(d *definition) *pb.Definition {
			return d.end(d.add(file(nil, mkdir("/x"), mkdir("/y"))))
		}, "duplicate output 0"},
		{"a copy from nothing", func(d *definition) *pb.Definition {
			return d.end(d.add(file(nil, &pb.FileAction{
				Input: -1, SecondaryInput: 3, Output: 0,
				Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/a", Dest: "/b"}},
			})))
		}, "input"},
		{"a copy of a file that is not there", func(d *definition) *pb.Definition {
			return d.end(d.add(file([]*pb.Input{d.add(busybox())}, &pb.FileAction{
				Input: -1, SecondaryInput: 0, Output: 0,
				Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/nosuch", Dest: "/b", Mode: -1}},
			})))
		}, `"/nosuch": not found`},
		{"a copy from above the tree", func(d *definition) *pb.Definition {
			return d.end(d.add(file([]*pb.Input{d.add(busybox())}, &pb.FileAction{
				Input: -1, SecondaryInput: 0, Output: 0,
				Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "../../../../../../../../../proc/version", Dest: "/b", Mode: -1}},
			})))
		}, "not found"},
		badFile("a removal of a file that is not there", "nosuch", func(a *pb.FileAction) {
			a.Action = &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/nosuch"}}
		}),
		badFile("an owner who is not there", "invalid user index: -1", func(a *pb.FileAction) {
			a.GetMkdir().Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "nosuch", Input: -1}}}}
		}),
		badFile("an owner whose input is not there", "invalid user index: 8", func(a *pb.FileAction) {
			a.GetMkdir().Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "root", Input: 8}}}}
		}),
	}
}

func badSources() []badDefinition {
	return []badDefinition{
		badSource("a source without a scheme", "just-text", "just-text"),
		badSource("a source with a scheme that is not known", "unknown scheme gopher", "gopher://x"),
		badSource("a source without a name", "", "docker-image://"),
		badSource("an image with a bad name", "", "docker-image://UPPER/../x:y:z"),
		badSource("an image that is not there", "not found", "docker-image://docker.io/library/nosuch:latest"),
		badSource("a folder that the client does not offer", "no local sources enabled", "local://nosuch"),
	}
}

func TestABadDefinitionGetsAnErrorAndHurtsNobody(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	for _, bad := range slices.Concat(badGraphs(), badExecs(), badFiles(), badSources()) {
		t.Run(bad.name, func(t *testing.T) {
			result := solve(t, d, bad.make(newDefinition(t))).wait(t)
			require.Equal(t, 1, result.Code, result.Stderr)
			message := errorMessage(t, result)
			require.Contains(t, strings.ToLower(message), strings.ToLower(bad.want))
			requireAlive(t, d)
		})
	}
	require.NotContains(t, d.Logs(), "panic")
	d.RequireIdle(t)
}

// errorMessage returns what a failed client printed last.
func errorMessage(t *testing.T, r harness.Result) string {
	t.Helper()
	at := strings.LastIndex(r.Stderr, "error: ")
	require.GreaterOrEqual(t, at, 0, "no error was printed: %q", r.Stderr)
	message := strings.TrimSpace(strings.TrimPrefix(r.Stderr[at:], "error: "))
	require.NotContains(t, message, "panic")
	require.NotContains(t, message, "context canceled")
	require.NotEmpty(t, strings.TrimPrefix(message, "failed to solve: "))
	return message
}

func TestPathsOfADefinitionStayInsideTheTree(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	for name, action := range map[string]*pb.FileAction{
		"a directory":                      mkdir("../../../../../../../../escape-dir"),
		"a directory, from the side":       mkdir("/a/../../../../../../../../escape-dir"),
		"a file":                           {Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "../../../../../../../../escape-file", Mode: 0o644, Timestamp: -1}}},
		"a link":                           {Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "/", Newpath: "../../../../../../../../escape-link", Timestamp: -1}}},
		"a removal, of all above the tree": {Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "../../../../../../../../tmp/*", AllowWildcard: true, AllowNotFound: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			action.Input, action.SecondaryInput, action.Output = -1, -1, 0
			if m := action.GetMkdir(); m != nil {
				m.MakeParents = true
			}
			kept := tree(t, map[string]string{"kept": "kept"})
			bad := newDefinition(t)
			solve(t, d, bad.end(bad.add(file(nil, action)))).wait(t)
			for _, path := range []string{"/escape-dir", "/escape-file", "/escape-link"} {
				require.NoFileExists(t, path)
				require.NoDirExists(t, path)
			}
			require.Equal(t, "kept", read(t, kept, "kept"))
			requireAlive(t, d)
		})
	}
}

func TestInputOfBuildctlThatIsNoDefinitionIsRefused(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	for name, test := range map[string]struct {
		input []byte
		want  string
	}{
		"nothing":  {nil, "empty definition sent to build"},
		"text":     {[]byte("FROM busybox\n"), ""},
		"noise":    {[]byte{0xff, 0xff, 0xff, 0xff}, "failed to parse input"},
		"too much": {hugeDefinition(t), "larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			result := pipe(t, d, test.input, "--progress=plain").wait(t)
			require.Equal(t, 1, result.Code)
			require.Contains(t, errorMessage(t, result), test.want)
			requireAlive(t, d)
		})
	}
}

// hugeDefinition is larger than the 16 MiB that a message may have.
func hugeDefinition(t *testing.T) []byte {
	t.Helper()
	var input []byte
	for range 18 {
		// Field 1, a megabyte of bytes.
		input = append(input, 0x0a, 0x80, 0x80, 0x40)
		input = append(input, make([]byte, 1<<20)...)
	}
	return input
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) {
	if data, ok := v.([]byte); ok {
		return data, nil
	}
	return nil, errors.New("not bytes")
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	if target, ok := v.(*[]byte); ok {
		*target = append([]byte(nil), data...)
		return nil
	}
	return errors.New("not bytes")
}

func (rawCodec) Name() string { return "proto" }

func TestARequestThatIsNoProtobufIsRefused(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	conn := dial(t, d.Addr)
	for _, method := range []string{
		"/moby.buildkit.v1.Control/Solve",
		"/moby.buildkit.v1.Control/DiskUsage",
		"/moby.buildkit.v1.frontend.LLBBridge/Solve",
		"/moby.buildkit.v1.frontend.LLBBridge/Return",
	} {
		for _, message := range []string{"\xff\xff\xff\xff\xff", "\x0a\xff\xff\xff\xff\x0f", "nonsense"} {
			var reply []byte
			err := conn.Invoke(t.Context(), method, []byte(message), &reply, grpc.ForceCodec(rawCodec{}))
			require.Error(t, err, method)
			require.NotEqual(t, codes.Unavailable, status.Code(err), "%s: %v", method, err)
		}
	}
	requireAlive(t, d)
}

// A client of an other make may leave out or repeat what ours never would.
func TestCallsOutOfOrderAreRefused(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	conn := dial(t, d.Addr)
	for _, method := range []string{"Ping", "Solve", "Return", "ReadFile", "ReadDir", "StatFile", "ResolveImageConfig", "ResolveSourceMeta", "Evaluate"} {
		var reply []byte
		err := conn.Invoke(t.Context(), "/moby.buildkit.v1.frontend.LLBBridge/"+method, []byte(nil), &reply, grpc.ForceCodec(rawCodec{}))
		require.Error(t, err, method)
		require.NotEqual(t, codes.Unavailable, status.Code(err), "%s: %v", method, err)
		require.NotEqual(t, codes.Unimplemented, status.Code(err), "%s: %v", method, err)
	}
	// A solve without a session and without anything to do.
	var reply []byte
	err := conn.Invoke(t.Context(), "/moby.buildkit.v1.Control/Solve", []byte(nil), &reply, grpc.ForceCodec(rawCodec{}))
	require.Error(t, err)
	requireAlive(t, d)
}

// dial connects to a daemon without buildctl.
func dial(t *testing.T, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.Connect()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	for state := conn.GetState(); state.String() != "READY"; state = conn.GetState() {
		require.True(t, conn.WaitForStateChange(ctx, state), "no connection to %s", addr)
	}
	return conn
}

func TestASecretOfTheClientReachesTheStepAndNothingElse(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	const secret = "tell-nobody"
	dir := tree(t, map[string]string{"secret": secret})
	script := fmt.Sprintf("[ $(sha256sum < /s | cut -c -64) = %[1]s ] && [ $(printf %%s $X | sha256sum | cut -c -64) = %[1]s ]", digest.FromString(secret).Encoded())
	state := llb.Image("docker.io/library/busybox").
		Run(llb.Shell(script), llb.AddSecret("/s", llb.SecretID("s")), llb.AddSecretEnv("X", llb.SecretID("s"))).Root()
	out := t.TempDir()
	requireSolved(t, solve(t, d, marshal(t, state), "--secret=id=s,src="+dir+"/secret", toLocal(out)))
	require.NotContains(t, d.Logs(), secret)
	for _, place := range []string{out, d.Root} {
		command(t, "sh", "-c", `! grep -rq "$2" "$1"`, "sh", place, secret)
	}
}
