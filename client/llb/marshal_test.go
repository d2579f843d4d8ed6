package llb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
)

func marshal(t *testing.T, s llb.State, opts ...llb.MarshalOption) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(context.Background(), opts...)
	require.NoError(t, err)
	return def
}

// ops returns the ops of def without the entry that names the result.
func ops(t *testing.T, def *pb.Definition) []*pb.Op {
	t.Helper()
	seen := map[string]bool{}
	var out []*pb.Op
	for _, dt := range def.Def {
		var op pb.Op
		require.NoError(t, proto.Unmarshal(dt, &op))
		for _, in := range op.Inputs {
			require.True(t, seen[in.Digest], "an op comes before its inputs")
		}
		seen[digest.FromBytes(dt).String()] = true
		out = append(out, &op)
	}
	require.Len(t, seen, len(def.Def), "an op is there twice")
	return out[:len(out)-1]
}

func result(t *testing.T, s llb.State) *pb.Op {
	t.Helper()
	all := ops(t, marshal(t, s))
	return all[len(all)-1]
}

func TestTheEmptyTreeHasAnEmptyDefinition(t *testing.T) {
	require.Empty(t, marshal(t, llb.Scratch()).Def)
	require.Empty(t, marshal(t, llb.Merge(nil)).Def)
	require.Empty(t, marshal(t, llb.Diff(llb.Scratch(), llb.Scratch())).Def)
}

func TestStatesDoNotChange(t *testing.T) {
	base := llb.Image("a").AddEnv("A", "1").Dir("/x").AddExtraHost("h", "1.1.1.1").AddUlimit("nofile", 1, 2)
	a := base.AddEnv("A", "2").AddExtraHost("i", "2.2.2.2").AddUlimit("core", 0, 0)
	b := base.AddEnv("B", "3").AddExtraHost("j", "3.3.3.3").AddUlimit("cpu", 0, 0)
	metaOf := func(s llb.State) *pb.Meta { return result(t, s.Run(llb.Args("x")).Root()).GetExec().Meta }

	require.Equal(t, []string{"A=1"}, metaOf(base).Env)
	require.Equal(t, []string{"A=2"}, metaOf(a).Env)
	require.Equal(t, []string{"A=1", "B=3"}, metaOf(b).Env)
	require.Equal(t, "i", metaOf(a).ExtraHosts[1].Host)
	require.Equal(t, "j", metaOf(b).ExtraHosts[1].Host)
	require.Equal(t, "core", metaOf(a).Ulimit[1].Name)
	require.Equal(t, []string{"A=1"}, metaOf(base.AddEnv("C", "").DelEnv("C")).Env)
}

func TestOptionsOfARunHoldForThatRunOnly(t *testing.T) {
	ctx := context.Background()
	after := llb.Image("a").Dir("/x").Run(llb.Args("x"), llb.Dir("y"), llb.AddEnv("A", "1"), llb.User("u")).Root()
	meta := result(t, after).GetExec().Meta
	require.Equal(t, "/x/y", meta.Cwd)
	require.Equal(t, "u", meta.User)
	dir, err := after.GetDir(ctx)
	require.NoError(t, err)
	require.Equal(t, "/x", dir)
	_, ok, err := after.GetEnv(ctx, "A")
	require.NoError(t, err)
	require.False(t, ok)
}

func TestMountsAreSortedAndTheirOutputsNumbered(t *testing.T) {
	src := llb.Local("src")
	e := llb.Image("a").Run(
		llb.Args("x"),
		llb.AddMount("/z", src),
		llb.AddMount("/ro", src, llb.Readonly(), llb.SourcePath("/sub")),
		llb.AddMount("/cache", llb.Scratch(), llb.PersistentCache("id", llb.CacheLocked)),
		llb.AddMount("/tmp", llb.Scratch(), llb.Tmpfs(5)),
		llb.AddMount("/b", llb.Scratch()),
		llb.AddMount("/lost", src, llb.ForceNoOutput()),
		llb.AddSecret("/s"),
		llb.AddSecretEnv("TOKEN", llb.SecretID("t"), llb.SecretOptional()),
		llb.AddSSHSocket(llb.SSHID("k")),
	)
	op := result(t, e.Root())
	exec := op.GetExec()
	type row struct {
		dest          string
		input, output int64
	}
	var rows []row
	for _, m := range exec.Mounts {
		rows = append(rows, row{m.Dest, m.Input, m.Output})
	}
	require.Equal(t, []row{
		{"/", 0, 0},
		{"/b", -1, 1},
		{"/cache", -1, -1},
		{"/lost", 1, -1},
		{"/ro", 1, -1},
		{"/tmp", -1, -1},
		{"/z", 1, 2},
		{"/s", -1, 0},
		{"/run/buildkit/ssh_agent.0", -1, 0},
	}, rows)
	require.Len(t, op.Inputs, 2, "an input is listed once")
	require.Equal(t, []string{"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"}, exec.Meta.Env)
	require.Equal(t, "TOKEN", exec.Secretenv[0].Name)

	last := func(s llb.State) *pb.Input {
		def := marshal(t, s)
		var op pb.Op
		require.NoError(t, proto.Unmarshal(def.Def[len(def.Def)-1], &op))
		return op.Inputs[0]
	}
	require.EqualValues(t, 2, last(e.GetMount("/z")).Index)
	require.EqualValues(t, 1, last(e.GetMount("/b")).Index)
	require.EqualValues(t, 0, last(e.GetMount("/")).Index)
	require.Equal(t, last(src), last(e.GetMount("/ro")))

	for target, text := range map[string]string{
		"/lost": "mount /lost keeps no output", "/cache": "mount /cache keeps no output", "/none": "no mount /none",
	} {
		_, err := e.GetMount(target).Marshal(context.Background())
		require.EqualError(t, err, text)
	}

	more := e.AddMount("/a", src)
	require.EqualValues(t, 1, last(more.GetMount("/a")).Index)
	require.EqualValues(t, 3, last(more.GetMount("/z")).Index)
	require.EqualValues(t, 2, last(e.GetMount("/z")).Index, "adding a mount changed the process it was added to")
}

func TestAReadOnlyRootKeepsItsTree(t *testing.T) {
	base := llb.Image("a")
	e := base.Run(llb.Args("x"), llb.ReadonlyRoot(), llb.AddMount("/out", llb.Scratch()))
	require.Equal(t, marshal(t, base).Def, marshal(t, e.Root()).Def)
	exec := result(t, e.GetMount("/out")).GetExec()
	require.EqualValues(t, -1, exec.Mounts[0].Output)
	require.EqualValues(t, 0, exec.Mounts[1].Output)
}

func TestMistakesAreReturnedByMarshal(t *testing.T) {
	for name, c := range map[string]struct {
		state llb.State
		text  string
	}{
		"a bad image name":         {llb.Image("A B").AddEnv("a", "b").Run(llb.Args("x")).Root(), `image "A B": `},
		"a bad shell word":         {llb.Image("a").Run(llb.Shlex(`echo "`)).Root(), `split command "echo \""`},
		"a process without a line": {llb.Image("a").Run().Root(), "arguments are required"},
		"a tmpfs of a tree":        {llb.Image("a").Run(llb.Args("x"), llb.AddMount("/t", llb.Image("a"), llb.Tmpfs(0))).Root(), "tmpfs mount /t"},
		"a mount over the root":    {llb.Image("a").Run(llb.Args("x"), llb.AddMount("/", llb.Image("b"))).Root(), "mount /: "},
		"a bad git remote":         {llb.Git("https://user:secret@h:x/p"), "git remote"},
		"a git remote with a ref":  {llb.Git("https://h/p#main"), "unexpected fragment"},
		"a failing async":          {llb.Scratch().Async(fails).Dir("/").File(llb.Mkdir("/a", 0o755)), "not today"},
		"an empty tree that waits": {llb.Scratch().Requires("id", []llb.State{llb.Image("a")}), "an empty tree"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.state.Marshal(context.Background())
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func fails(context.Context, llb.State, llb.Constraints) (llb.State, error) {
	return llb.State{}, errors.New("not today")
}

func TestAsyncIsCalledOncePerMarshalAndOnlyThen(t *testing.T) {
	calls := 0
	s := llb.Image("a").Async(func(_ context.Context, s llb.State, c llb.Constraints) (llb.State, error) {
		calls++
		return s.AddEnv("FOR", c.Platform.Architecture).Dir("/async"), nil
	})
	left := s.Dir("left").Run(llb.Args("l")).Root()
	right := s.File(llb.Mkdir("right", 0o755)).Run(llb.Args("r"), llb.AddMount("/m", s)).GetMount("/m")
	both := llb.Merge([]llb.State{left, right, llb.Diff(s, left)})
	require.Zero(t, calls)
	all := ops(t, marshal(t, both, llb.Platform(amd64)))
	require.Equal(t, 1, calls)

	dirs, envs := []string{}, []string{}
	for _, op := range all {
		if e := op.GetExec(); e != nil {
			dirs, envs = append(dirs, e.Meta.Cwd), append(envs, e.Meta.Env...)
		}
		if f := op.GetFile(); f != nil {
			require.Equal(t, "/async/right", f.Actions[0].GetMkdir().Path)
		}
	}
	require.ElementsMatch(t, []string{"/async/left", "/async"}, dirs)
	require.Equal(t, []string{"FOR=amd64", "FOR=amd64"}, envs)

	dir, err := left.GetDir(context.Background(), llb.Platform(amd64))
	require.NoError(t, err)
	require.Equal(t, "/async/left", dir)
}

func TestAnImageInheritsItsConfiguration(t *testing.T) {
	r := resolverFunc(func(ref string, opt llb.ImageResolveOpt) (llb.ImageMeta, error) {
		require.Equal(t, "docker.io/library/a:latest", ref)
		require.Equal(t, llb.ResolveForcePull, opt.Mode)
		return llb.ImageMeta{
			Digest: digest.FromString("m"),
			Config: []byte(`{"os":"linux","architecture":"arm64","config":{"Env":["A=1"],"WorkingDir":"/w","User":"u"}}`),
		}, nil
	})
	s := llb.Image("a", llb.WithMetaResolver(r), llb.PinDigest(), llb.ResolveForcePull)
	all := ops(t, marshal(t, s.Run(llb.Args("x")).Root()))
	require.Equal(t, "docker-image://docker.io/library/a:latest@"+digest.FromString("m").String(), all[0].GetSource().Identifier)
	require.Equal(t, map[string]string{"image.resolvemode": "pull"}, all[0].GetSource().Attrs)
	meta := all[1].GetExec().Meta
	require.Equal(t, []string{"A=1"}, meta.Env)
	require.Equal(t, "/w", meta.Cwd)
	require.Equal(t, "u", meta.User)
	require.Equal(t, "arm64", all[1].Platform.Architecture)
}

type resolverFunc func(string, llb.ImageResolveOpt) (llb.ImageMeta, error)

func (f resolverFunc) ResolveImageConfig(_ context.Context, ref string, opt llb.ImageResolveOpt) (llb.ImageMeta, error) {
	return f(ref, opt)
}

func TestEqualOpsAreWrittenOnceWithTheMetadataOfAll(t *testing.T) {
	sm := llb.NewSourceMap(nil, "f", "text", []byte("one\ntwo\n"))
	at := func(line int32) llb.ConstraintsOpt {
		return sm.Location(&pb.Range{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line}})
	}
	a := llb.Scratch().File(llb.Mkdir("/a", 0o755), at(1), llb.CustomName("first"))
	b := llb.Scratch().File(llb.Mkdir("/a", 0o755), at(2), llb.IgnoreCache(), llb.Description(map[string]string{"k": "v"}))
	def := marshal(t, llb.Merge([]llb.State{a, b}))
	require.Len(t, ops(t, def), 2)
	dgst := digest.FromBytes(def.Def[0]).String()
	require.True(t, def.Metadata[dgst].IgnoreCache)
	require.Equal(t, map[string]string{"k": "v", "llb.customname": "first"}, def.Metadata[dgst].Description)
	require.Equal(t, map[string]bool{"file.base": true}, def.Metadata[dgst].Caps)
	require.Len(t, def.Source.Infos, 1)
	require.Len(t, def.Source.Locations[dgst].Locations, 2)
	last := digest.FromBytes(def.Def[len(def.Def)-1]).String()
	require.Equal(t, map[string]bool{
		"constraints": true, "platform": true, "meta.description": true, "meta.ignorecache": true,
	}, def.Metadata[last].Caps)
}

func TestLocalSourcesCarryTheirOptions(t *testing.T) {
	s := llb.Local("ctx",
		llb.SessionID("sid"), llb.IncludePatterns("a", "b"), llb.ExcludePatterns("c"), llb.FollowPaths(),
		llb.SharedKeyHint("hint"), llb.Differ(llb.DifferNone, true), llb.MetadataOnly("keep"))
	src := result(t, s).GetSource()
	require.Equal(t, "local://ctx", src.Identifier)
	require.Equal(t, map[string]string{
		"local.session": "sid", "local.includepattern": `["a","b"]`, "local.excludepatterns": `["c"]`,
		"local.sharedkeyhint": "hint", "local.differ": "none",
		"local.metadatatransfer": "true", "local.metadatatransferexclude": `["keep"]`,
	}, src.Attrs)

	attrs := func(s llb.State) map[string]string {
		return ops(t, marshal(t, s, llb.LocalUniqueID("u")))[0].GetSource().Attrs
	}
	require.Equal(t, map[string]string{"local.unique": "u"}, attrs(llb.Local("a")))
	require.Equal(t, map[string]string{"local.session": "s"}, attrs(llb.Local("a", llb.SessionID("s"))))
}

func TestGitRemotesOfOneRepositoryHaveOneIdentifier(t *testing.T) {
	for remote, want := range map[string]struct{ id, url, ssh string }{
		"https://github.com/a/b.git":      {"git://github.com/a/b.git", "https://github.com/a/b.git", ""},
		"github.com/a/b.git":              {"git://github.com/a/b.git", "https://github.com/a/b.git", ""},
		"git@github.com:a/b.git":          {"git://github.com/a/b.git", "git@github.com:a/b.git", "default"},
		"ssh://git@github.com:22/a/b.git": {"git://github.com:22/a/b.git", "ssh://git@github.com:22/a/b.git", "default"},
		"git://h:1/p":                     {"git://h:1/p", "git://h:1/p", ""},
	} {
		src := result(t, llb.Git(remote)).GetSource()
		require.Equal(t, want.id, src.Identifier)
		require.Equal(t, want.url, src.Attrs["git.fullurl"])
		require.Equal(t, want.ssh, src.Attrs["git.mountsshsock"])
	}
}

func TestADefinitionIsWrittenAgainByteForByte(t *testing.T) {
	sm := llb.NewSourceMap(nil, "f", "text", nil)
	base := llb.Image("a", llb.Platform(amd64), sm.Location(&pb.Range{}))
	e := base.Run(llb.Args("x"), llb.AddMount("/m", llb.Scratch()), llb.CustomName("name"))
	def := marshal(t, e.GetMount("/m"))
	s, err := llb.FromDefinition(def)
	require.NoError(t, err)
	again := marshal(t, s)
	require.Equal(t, def.Def, again.Def)
	require.True(t, proto.Equal(def, again))

	on := marshal(t, s.File(llb.Mkdir("/d", 0o755)))
	require.Len(t, on.Def, len(def.Def)+1)
	require.Len(t, on.Source.Infos, 1)
}

func TestLongGraphsAreWrittenInLinearTime(t *testing.T) {
	const n = 10_000
	for name, build := range map[string]func(llb.State) llb.State{
		"runs":      func(s llb.State) llb.State { return s.Run(llb.Args("x")).Root() },
		"files":     func(s llb.State) llb.State { return s.File(llb.Mkdir("/a", 0o755)) },
		"merges":    func(s llb.State) llb.State { return llb.Merge([]llb.State{s, llb.Image("b")}) },
		"asyncs":    func(s llb.State) llb.State { return s.Async(same) },
		"variables": func(s llb.State) llb.State { return s.AddEnv("A", "1").Dir("/x") },
	} {
		t.Run(name, func(t *testing.T) {
			s := llb.Image("a")
			for range n {
				s = build(s)
			}
			start := time.Now()
			marshal(t, s.Run(llb.Args("last")).Root())
			require.Less(t, time.Since(start), 10*time.Second)
		})
	}
	t.Run("actions of one op", func(t *testing.T) {
		var f *llb.FileAction
		for i := range n {
			f = f.Copy(llb.Local(fmt.Sprint(i)), "/", "/")
		}
		require.Len(t, result(t, llb.Image("a").File(f)).GetFile().Actions, n)
	})
}

func same(_ context.Context, s llb.State, _ llb.Constraints) (llb.State, error) { return s, nil }

func TestMarshalStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	_, err := llb.Image("a").Marshal(ctx)
	require.ErrorIs(t, err, cause)
}

func TestRequiresWaitsWithoutSeeing(t *testing.T) {
	s := llb.Image("a")
	require.Equal(t, marshal(t, s).Def, marshal(t, s.Requires("id", nil)).Def)
	op := result(t, s.Requires("id", []llb.State{llb.Image("b"), llb.Scratch()}))
	require.Len(t, op.Inputs, 2)
	require.Equal(t, []int64{0}, op.GetPassthrough().Outputs)
}

func FuzzFromDefinition(f *testing.F) {
	for _, s := range []llb.State{
		llb.Scratch(),
		llb.Image("a").Run(llb.Args("x")).Root(),
		llb.Merge([]llb.State{llb.Image("a"), llb.Local("l")}),
	} {
		def, err := s.Marshal(context.Background())
		require.NoError(f, err)
		dt, err := proto.Marshal(def)
		require.NoError(f, err)
		f.Add(dt)
	}
	f.Fuzz(func(t *testing.T, dt []byte) {
		var def pb.Definition
		if proto.Unmarshal(dt, &def) != nil {
			return
		}
		s, err := llb.FromDefinition(&def)
		if err != nil {
			return
		}
		_, _ = s.Marshal(context.Background())
	})
}
