package llb_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/client/llb"
)

// shuffled returns options in any order.
func shuffled[T any](opts ...T) []T {
	rand.Shuffle(len(opts), func(i, j int) { opts[i], opts[j] = opts[j], opts[i] })
	return opts
}

// anyOrder calls all functions, in any order.
func anyOrder(fns ...func()) {
	for _, fn := range shuffled(fns...) {
		fn()
	}
}

// sameGraph makes the same graph, with what does not depend on each other in any order.
func sameGraph() llb.State {
	var base, src, remote, tools, made, link llb.State
	file := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", []byte("FROM a\nRUN b\n"))
	anyOrder(
		func() {
			base = llb.Image("docker.io/library/busybox:latest", shuffled[llb.ImageOption](llb.ResolveForcePull, llb.CustomName("base"), file.Location())...)
		},
		func() {
			src = llb.Local("context", shuffled[llb.LocalOption](llb.SharedKeyHint("hint"), llb.IncludePatterns("a", "b"), llb.ExcludePatterns("c"), llb.Differ(llb.DifferNone, true))...)
		},
		func() {
			remote = llb.Git("https://example.com/x.git", shuffled[llb.GitOption](llb.GitRef("main"), llb.KeepGitDir(), llb.GitMTimeCommit, llb.GitSkipSubmodules())...)
		},
		func() { tools = llb.Scratch().File(llb.Mkfile("/tool", 0o755, []byte("x"))) },
	)
	anyOrder(
		func() {
			made = base.Dir("/w").AddEnv("A", "1").Run(shuffled[llb.RunOption](
				llb.Args("make"), llb.AddMount("/src", src, llb.Readonly()), llb.AddMount("/x", remote), llb.AddMount("/tools", tools),
				llb.AddMount("/cache", llb.Scratch(), llb.PersistentCache("id", llb.CacheShared)),
				llb.ProgressGroup("g", "group", true), llb.Description(map[string]string{"a": "1", "b": "2", "c": "3"}), llb.IgnoreCache(),
			)...).Root()
		},
		func() { link = llb.Scratch().File(llb.Copy(src, "/a", "/b").Copy(remote, "/c", "/d")) },
	)
	return llb.Merge([]llb.State{base, made, link, llb.Diff(base, made)}).Requires("after", []llb.State{tools, src})
}

func TestTheSameGraphIsTheSameBytes(t *testing.T) {
	encode := func() []byte {
		// Maps of the message have an order only when one is asked for.
		out, err := proto.MarshalOptions{Deterministic: true}.Marshal(marshal(t, sameGraph()))
		require.NoError(t, err)
		return out
	}
	want := encode()
	for i := range 1000 {
		require.Equal(t, want, encode(), "round %d", i)
	}
}

// TestTheSameWideGraphIsTheSameBytes makes many independent ops in any order and joins them.
func TestTheSameWideGraphIsTheSameBytes(t *testing.T) {
	const width = 50
	encode := func() []byte {
		parts := make([]llb.State, width)
		for _, i := range rand.Perm(width) {
			parts[i] = llb.Image(fmt.Sprintf("image-%d", i%7)).Run(llb.Shlexf("step %d", i)).Root()
		}
		out, err := proto.MarshalOptions{Deterministic: true}.Marshal(marshal(t, llb.Merge(parts)))
		require.NoError(t, err)
		return out
	}
	want := encode()
	for range 20 {
		require.Equal(t, want, encode())
	}
}
