package graph_test

import (
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
)

var opt = graph.Opt{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}

type builder struct {
	def pb.Definition
}

func (b *builder) add(op *pb.Op) *pb.Input {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	if err != nil {
		panic(err)
	}
	b.def.Def = append(b.def.Def, raw)
	return &pb.Input{Digest: string(digest.FromBytes(raw))}
}

func (b *builder) result(in *pb.Input) *pb.Definition {
	b.add(&pb.Op{Inputs: []*pb.Input{in}})
	return &b.def
}

func source(id string) *pb.Op {
	return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: id}}}
}

func run(in *pb.Input, args ...string) *pb.Op {
	return &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Exec{Exec: &pb.ExecOp{
		Meta: &pb.Meta{Args: args}, Mounts: []*pb.Mount{{Dest: "/"}},
	}}}
}

func TestLoadKeepsInputsBeforeTheirUsers(t *testing.T) {
	b := &builder{}
	src := b.add(source("docker-image://x"))
	one := b.add(run(src, "one"))
	b.add(source("local://unused"))
	two := b.add(run(one, "two", "words"))
	g, err := graph.Load(b.result(two), opt)
	require.NoError(t, err)
	var names []string
	for _, v := range g.Vertices {
		names = append(names, v.Name)
		require.Equal(t, "amd64", v.Platform.Architecture)
	}
	require.Equal(t, []string{"docker-image://x", "one", "two words"}, names)
	require.Equal(t, g.Vertices[2], g.Root.Vertex)
}

func TestFileActionsAreNamed(t *testing.T) {
	b := &builder{}
	actions := []*pb.FileAction{
		{SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/d"}}},
		{SecondaryInput: -1, Output: -1, Input: 1, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/d/f"}}},
		{SecondaryInput: -1, Output: -1, Input: 2, Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "/d/f", Newpath: "/l"}}},
		{SecondaryInput: -1, Output: -1, Input: 3, Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/x"}}},
		{SecondaryInput: 0, Input: 4, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/a", Dest: "/b"}}},
	}
	in := b.add(source("docker-image://x"))
	op := &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
	g, err := graph.Load(b.result(b.add(op)), opt)
	require.NoError(t, err)
	require.Equal(t, "mkdir /d, mkfile /d/f, symlink /l -> /d/f, rm /x, copy /a /b", g.Root.Vertex.Name)
}

func TestNamesOfMergesHaveABound(t *testing.T) {
	b := &builder{}
	in := b.add(source("docker-image://ü"))
	for range 60 {
		in = b.add(&pb.Op{Inputs: []*pb.Input{in, in}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}, {Input: 1}}}}})
	}
	g, err := graph.Load(b.result(in), opt)
	require.NoError(t, err)
	require.Less(t, len(g.Root.Vertex.Name), 1100)
	require.True(t, utf8.ValidString(g.Root.Vertex.Name))
}

func TestLoadTellsWhoMayShareAVertex(t *testing.T) {
	b := &builder{}
	pinned := source("local://ctx")
	pinned.GetSource().Attrs = map[string]string{"local.session": "s"}
	free := b.add(source("local://ctx"))
	top := b.add(run(free, "x"))
	g, err := graph.Load(b.result(top), opt)
	require.NoError(t, err)
	require.Equal(t, graph.ShareSession, g.Vertices[0].Sharing)
	require.Equal(t, graph.ShareSession, g.Vertices[1].Sharing, "and so may those that are made from it")
	b = &builder{}
	g, err = graph.Load(b.result(b.add(run(b.add(pinned), "x"))), opt)
	require.NoError(t, err)
	require.Equal(t, graph.ShareAll, g.Root.Vertex.Sharing)

	// What a build op builds is found out by the build that it is part of.
	b = &builder{}
	build := &pb.Op{Inputs: []*pb.Input{b.add(source("local://ctx"))}, Op: &pb.Op_Build{Build: &pb.BuildOp{
		Builder: pb.LLBBuilder, Inputs: map[string]*pb.BuildInput{pb.LLBDefinition: {}},
	}}}
	g, err = graph.Load(b.result(b.add(run(b.add(build), "x"))), graph.Opt{Platform: opt.Platform, Policies: "strict"})
	require.NoError(t, err)
	require.Equal(t, []graph.Sharing{graph.ShareSession, graph.ShareNone, graph.ShareNone},
		[]graph.Sharing{g.Vertices[0].Sharing, g.Vertices[1].Sharing, g.Vertices[2].Sharing})
	require.Equal(t, []string{"", "strict", ""}, []string{g.Vertices[0].Policies, g.Vertices[1].Policies, g.Vertices[2].Policies})
}

func TestLoadTellsWhatHasChangedSinceAVersion(t *testing.T) {
	for version, want := range map[compat.Version]compat.Version{0: 0, compat.V30: 0, compat.V20: 0, compat.V10: compat.V10} {
		b := &builder{}
		top := run(b.add(source("git://h/r")), "x")
		top.Inputs = append(top.Inputs, b.add(source("docker-image://x")))
		g, err := graph.Load(b.result(b.add(top)), graph.Opt{Platform: opt.Platform, Compat: version})
		require.NoError(t, err)
		for _, v := range g.Vertices {
			if v.Name == "git://h/r" {
				require.Equal(t, want, v.Compat)
			} else {
				require.Zero(t, v.Compat, v.Name)
			}
		}
	}
}

func TestLoadOfALongChainIsQuickAndFlat(t *testing.T) {
	b := &builder{}
	in := b.add(source("docker-image://x"))
	for i := range 100_000 {
		in = b.add(run(in, fmt.Sprint(i)))
	}
	g, err := graph.Load(b.result(in), opt)
	require.NoError(t, err)
	require.Len(t, g.Vertices, 100_001)
}

func TestLoadRefuses(t *testing.T) {
	mount := func(m ...*pb.Mount) *pb.Op {
		return &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}, Mounts: m}}}
	}
	ok := source("docker-image://x")
	for name, c := range map[string]struct {
		op  *pb.Op
		def *pb.Definition
		err string
	}{
		"nothing":                             {def: &pb.Definition{}, err: "invalid empty definition"},
		"garbage":                             {def: &pb.Definition{Def: [][]byte{{0xff}, {0xff}}}, err: "failed to parse llb proto op"},
		"one op":                              {def: &pb.Definition{Def: [][]byte{{}}}, err: "invalid LLB with 1 vertexes"},
		"no result":                           {def: &pb.Definition{Def: [][]byte{{}, {}}}, err: "invalid LLB with no inputs on last vertex"},
		"missing input":                       {def: (&builder{}).result(&pb.Input{Digest: "sha256:00"}), err: "invalid LLB with 1 vertexes"},
		"dangling input":                      {op: run(&pb.Input{Digest: "sha256:00"}, "x"), err: "invalid missing input digest sha256:00"},
		"negative output":                     {op: run(&pb.Input{Digest: "sha256:00", Index: -1}, "x"), err: "invalid input 0 output index -1"},
		"no payload":                          {op: &pb.Op{Platform: &pb.Platform{OS: "linux"}}, err: "failed to load cache key: no support for <nil>"},
		"exec without meta":                   {op: &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{}}}, err: "failed to load LLB: invalid exec op with no meta"},
		"exec without args":                   {op: &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{}}}}, err: "invalid exec op with no args"},
		"exec without mounts":                 {op: mount(), err: "invalid exec op with no mounts"},
		"exec without root":                   {op: mount(&pb.Mount{Dest: "/x"}), err: "invalid exec op with no rootfs"},
		"cache at the root":                   {op: mount(&pb.Mount{Dest: "/", MountType: pb.MountType_CACHE}), err: "invalid mount type CACHE for /"},
		"exec with an input before the first": {op: mount(&pb.Mount{Dest: "/", Input: -2}), err: "invalid mount input -2 of /"},
		"exec with a far output":              {op: mount(&pb.Mount{Dest: "/", Output: 1 << 40}), err: "invalid mount output 1099511627776 of /"},
		"exec with one output for two":        {op: mount(&pb.Mount{Dest: "/"}, &pb.Mount{Dest: "/x"}), err: "duplicate mount output 0"},
		"file without actions":                {op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{}}}, err: "invalid file op with no actions"},
		"file with an empty one":              {op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{}}}}}, err: "invalid file op with nil action"},
		"diff of nothing":                     {op: &pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}, err: "invalid diff op with nil lower or upper input"},
		"merge out of range":                  {op: &pb.Op{Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 1}}}}}, err: "invalid merge input index 1"},
		"diff out of range":                   {op: &pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{Lower: &pb.LowerDiffInput{Input: -2}, Upper: &pb.UpperDiffInput{Input: -1}}}}, err: "invalid diff input index -2"},
		"passthrough without id":              {op: &pb.Op{Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{}}}, err: "invalid passthrough op with no id"},
		"passthrough out of range":            {op: &pb.Op{Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: "x", Outputs: []int64{3}}}}, err: "invalid passthrough output input index 3"},
	} {
		t.Run(name, func(t *testing.T) {
			def := c.def
			if def == nil {
				b := &builder{}
				b.add(ok)
				def = b.result(b.add(c.op))
			}
			_, err := graph.Load(def, opt)
			require.ErrorContains(t, err, c.err)
		})
	}
}

func TestLoadAsksForCapabilities(t *testing.T) {
	b := &builder{}
	in := b.add(source("docker-image://x"))
	def := b.result(in)
	def.Metadata = map[string]*pb.OpMetadata{in.Digest: {Caps: map[string]bool{"exec.teleport": true}}}
	bad := errors.New("unknown API capability exec.teleport")
	_, err := graph.Load(def, graph.Opt{Platform: opt.Platform, Capabilities: func(string) error { return bad }})
	require.ErrorIs(t, err, bad)
}

// TestFiltersOfWorkersChangeNothing: a daemon has one worker, whatever an op wants it to be like.
func TestFiltersOfWorkersChangeNothing(t *testing.T) {
	b := &builder{}
	op := source("docker-image://x")
	op.Constraints = &pb.WorkerConstraints{Filter: []string{"label.absent==true", "(("}}
	g, err := graph.Load(b.result(b.add(op)), opt)
	require.NoError(t, err)
	require.Equal(t, "docker-image://x", g.Root.Vertex.Name)
}

func FuzzLoad(f *testing.F) {
	b := &builder{}
	def := b.result(b.add(run(b.add(source("local://x")), "x")))
	raw, err := proto.Marshal(def)
	require.NoError(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var def pb.Definition
		if proto.Unmarshal(raw, &def) != nil {
			return
		}
		g, err := graph.Load(&def, opt)
		if err == nil && g.Root.Vertex == nil {
			t.Fatal("no root and no error")
		}
	})
}
