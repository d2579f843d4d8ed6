package provenance_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	slsa02 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v0.2"
	slsa1 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/provenance"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/usage"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	amd64 = platforms.MustParse("linux/amd64")
	hash  = strings.Repeat("a", 64)
	began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// graph returns a definition of an image, a folder, a copy and a step with a secret.
func graph(t *testing.T) (*pb.Definition, []digest.Digest) {
	t.Helper()
	def := &pb.Definition{}
	var all []digest.Digest
	add := func(op *pb.Op) *pb.Input {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
		require.NoError(t, err)
		def.Def = append(def.Def, data)
		all = append(all, digest.FromBytes(data))
		return &pb.Input{Digest: digest.FromBytes(data).String()}
	}
	base := add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "docker-image://docker.io/library/a:1@sha256:" + hash}}})
	git := add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{
		Identifier: "git://example.org/x.git#main",
		Attrs:      map[string]string{"git.fullurl": "https://user:hunter2@example.org/x.git", "local.session": "s"},
	}}})
	file := add(&pb.Op{Inputs: []*pb.Input{base, git}, Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{
		SecondaryInput: 1, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/", Dest: "/"}},
	}}}}})
	step := add(&pb.Op{Inputs: []*pb.Input{file}, Op: &pb.Op_Exec{Exec: &pb.ExecOp{
		Meta: &pb.Meta{
			Args: []string{"fetch", "https://user:hunter2@example.org"}, Env: []string{"P=http://user:hunter2@proxy"},
			ProxyEnv: &pb.ProxyEnv{HttpProxy: "http://hunter2"},
		},
		Mounts: []*pb.Mount{
			{Dest: "/"},
			{Dest: "/s", Input: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s", Optional: true}},
			{Dest: "/agent", Input: -1, MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "default"}},
		},
		Secretenv: []*pb.SecretEnv{{ID: "token", Name: "TOKEN"}},
	}}})
	add(&pb.Op{Inputs: []*pb.Input{step}})
	def.Source = &pb.Source{
		Infos:     []*pb.SourceInfo{{Filename: "Dockerfile", Language: "Dockerfile", Data: []byte("FROM a\n"), Definition: &pb.Definition{Def: def.Def[:1]}}},
		Locations: map[string]*pb.Locations{base.GetDigest(): {Locations: []*pb.Location{{Ranges: []*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}}}}}},
	}
	return def, all
}

// build returns a build with everything that can be told.
func build(t *testing.T) *provenance.Build {
	t.Helper()
	def, digests := graph(t)
	c := &provenance.Capture{Request: provenance.Request{
		Frontend: "dockerfile.v0",
		Options: map[string]string{
			"context": "https://user:hunter2@example.org/x.git#main:sub", "filename": "x.Dockerfile", "target": "t",
			"build-arg:A": "b", "build-arg:HTTP_PROXY": "http://user:hunter2@proxy", "label:l": "m",
			"platform": "linux/amd64", "cgroup-parent": "c", "image-resolve-mode": "pull", "cache-imports": "[]", "attest:provenance": "",
			"vcs:source": "https://example.org/x", "vcs:revision": "r", "vcs:empty": "",
		},
		Inputs:        map[string]*provenance.Request{"base": {Frontend: "gateway.v0", Options: map[string]string{"source": "x", "build-arg:C": "d"}}, "other": nil},
		Root:          &provenance.Request{Options: map[string]string{"build-arg:A": "b"}},
		Compatibility: 30,
	}}
	for _, data := range def.GetDef() {
		op := &pb.Op{}
		require.NoError(t, proto.Unmarshal(data, op))
		c.Op(op)
	}
	arm := platforms.MustParse("linux/arm64")
	blob := source.Material{Kind: source.MaterialImage, Name: "docker.io/o/blob@sha256:" + hash, Digest: "sha256:" + hash, Blob: true}
	for _, m := range []source.Material{
		source.ImageMaterial("docker.io/library/a:1@sha256:"+hash, amd64, "sha256:"+hash, false),
		source.ImageMaterial("docker.io/library/a:1", amd64, "sha256:"+hash, false),
		source.ImageMaterial("docker.io/library/a:1@sha256:"+hash, arm, "sha256:"+hash, false),
		source.ImageMaterial("layout:1@sha256:"+hash, amd64, "sha256:"+hash, true),
		blob,
		{Kind: source.MaterialGit, Name: "https://xxxxx@example.org/x.git#main", Digest: strings.Repeat("b", 40), Secrets: []string{"GIT_AUTH_TOKEN"}, SSH: []string{"default"}},
		{Kind: source.MaterialGit, Name: "https://example.org/y.git", Digest: hash, Bundle: &blob},
		{Kind: source.MaterialHTTP, Name: "https://example.org/f", Digest: "sha256:" + hash},
		{Kind: source.MaterialHTTP, Name: "https://example.org/f", Digest: "sha256:" + hash},
		{Kind: source.MaterialLocal, Name: "context"},
	} {
		c.Source(m)
	}
	return &provenance.Build{
		ID: "ref", Started: began, Finished: began.Add(time.Minute), Platform: amd64, Env: map[string]any{"site": "here"},
		Dockerfile: "1.2.3",
		Capture:    c, Definition: def,
		MaxLayers: 100,
		Layers: func(vertex digest.Digest) [][]ocispec.Descriptor {
			if vertex != digests[0] {
				return nil
			}
			return [][]ocispec.Descriptor{{{MediaType: "layer", Digest: digest.Digest("sha256:" + hash), Size: 3}}}
		},
	}
}

func TestPredicatesAreTheKnownOnes(t *testing.T) {
	for name, attrs := range map[string]map[string]string{
		"v1-max":  {"reproducible": "true", "builder-id": "https://builder.example/1"},
		"v1-min":  {"mode": "min"},
		"v02-max": {"version": "v0.2", "mode": "full"},
		"v02-min": {"version": "v0.2", "mode": "min"},
	} {
		t.Run(name, func(t *testing.T) {
			opt, err := provenance.ParseOptions(attrs)
			require.NoError(t, err)
			data, err := build(t).Predicate(opt)
			require.NoError(t, err)
			require.NotContains(t, string(data), "hunter2")
			again, err := build(t).Predicate(opt)
			require.NoError(t, err)
			require.JSONEq(t, string(data), string(again))
			if opt.Version == provenance.V1 {
				var p slsa1.ProvenancePredicate //nolint:staticcheck // what most who verify parse with
				require.NoError(t, json.Unmarshal(data, &p), "others read it")
				require.Len(t, p.BuildDefinition.ResolvedDependencies, 8)
			} else {
				var p slsa02.ProvenancePredicate
				require.NoError(t, json.Unmarshal(data, &p), "others read it")
				require.Len(t, p.Materials, 8)
			}
			var v any
			require.NoError(t, json.Unmarshal(data, &v))
			shown, err := json.MarshalIndent(v, "", "  ")
			require.NoError(t, err)
			golden := "testdata/" + name + ".json"
			if *update {
				require.NoError(t, os.WriteFile(golden, append(shown, '\n'), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(data))
		})
	}
}

func TestUsageIsToldIfThatIsAskedFor(t *testing.T) {
	type told struct {
		Definition struct {
			Internal struct {
				Config struct {
					Steps []struct {
						ID    string         `json:"id"`
						Usage *usage.Samples `json:"resourceUsage"`
					} `json:"llbDefinition"`
				} `json:"buildConfig"`
			} `json:"internalParameters"`
		} `json:"buildDefinition"`
		Run struct {
			Metadata struct {
				BuildKit struct {
					System []*usage.SysSample `json:"sysUsage"`
				} `json:"buildkit_metadata"`
			} `json:"metadata"`
		} `json:"runDetails"`
	}
	n := uint64(7)
	for _, asked := range []bool{true, false} {
		b := build(t)
		ran := digest.FromBytes(b.Definition.GetDef()[0])
		b.Usage = map[digest.Digest]*usage.Samples{
			ran:     {Samples: []*usage.Sample{{CPU: &usage.CPU{UsageNanos: &n}}}, System: &usage.SysCPU{Idle: 1}},
			"other": {Samples: []*usage.Sample{{}}},
		}
		b.System = []*usage.SysSample{{CPU: &usage.SysCPU{User: 2}}}
		data, err := b.Predicate(provenance.Options{Max: true, Version: provenance.V1, CaptureUsage: asked})
		require.NoError(t, err)
		var p told
		require.NoError(t, json.Unmarshal(data, &p))
		steps := 0
		for _, s := range p.Definition.Internal.Config.Steps {
			if s.Usage != nil {
				steps++
				require.Equal(t, b.Usage[ran], s.Usage)
			}
		}
		if !asked {
			require.Zero(t, steps)
			require.Empty(t, p.Run.Metadata.BuildKit.System)
			continue
		}
		require.Equal(t, 1, steps)
		require.Equal(t, b.System, p.Run.Metadata.BuildKit.System)
	}
}

// A tag may be moved between two steps of a Dockerfile that name it with and without a digest.
func TestAnImageIsLeftOutOnlyIfItIsTheOneThatItsTagStoodFor(t *testing.T) {
	c := &provenance.Capture{}
	old := strings.Repeat("b", 64)
	for _, m := range []source.Material{
		source.ImageMaterial("docker.io/library/a:1", amd64, "sha256:"+hash, false),
		source.ImageMaterial("docker.io/library/a:1@sha256:"+hash, amd64, "sha256:"+hash, false),
		source.ImageMaterial("docker.io/library/a:1@sha256:"+old, amd64, "sha256:"+old, false),
	} {
		c.Source(m)
	}
	data, err := (&provenance.Build{Platform: amd64, Capture: c}).Predicate(provenance.Options{Version: provenance.V1})
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(data), `"sha256":"`+hash))
	require.Equal(t, 1, strings.Count(string(data), `"sha256":"`+old))
}

func TestTheDigestOfAContextIsThatOfItsMaterial(t *testing.T) {
	commit := strings.Repeat("c", 40)
	for context, want := range map[string]string{
		"https://h/r.git": "b", "https://h/r.git#:sub": "b", "https://h/r.git#main": "c", "https://h/r.git#main:sub/x": "c",
		"https://user:hunter2@h/r.git#main": "", "https://h/r.git#other": "", "https://h/x.tar": "a", "https://h/": "",
	} {
		c := &provenance.Capture{Request: provenance.Request{Options: map[string]string{"context": context}}}
		for _, m := range []source.Material{
			{Kind: source.MaterialGit, Name: "https://h/r.git", Digest: strings.Repeat("b", 40)},
			{Kind: source.MaterialGit, Name: "https://h/r.git#main", Digest: commit},
			{Kind: source.MaterialHTTP, Name: "https://h/x.tar", Digest: "sha256:" + hash},
		} {
			c.Source(m)
		}
		data, err := (&provenance.Build{Platform: amd64, Capture: c}).Predicate(provenance.Options{Version: provenance.V02})
		require.NoError(t, err)
		var p slsa02.ProvenancePredicate
		require.NoError(t, json.Unmarshal(data, &p))
		require.Equal(t, strings.Replace(context, "user:hunter2", "xxxxx", 1), p.Invocation.ConfigSource.URI)
		got := ""
		for _, hex := range p.Invocation.ConfigSource.Digest {
			got = hex[:1]
		}
		require.Equal(t, want, got, context)
	}
}

func TestLayersAreToldByStepAndOutput(t *testing.T) {
	def, digests := graph(t)
	layers := func(n int) []ocispec.Descriptor { return make([]ocispec.Descriptor, n) }
	for name, tc := range map[string]struct {
		known map[digest.Digest][][]ocispec.Descriptor
		want  map[string]int
	}{
		"several outputs": {
			map[digest.Digest][][]ocispec.Descriptor{digests[0]: {layers(1)}, digests[1]: {nil}, digests[3]: {layers(2), nil, layers(3)}, "other": {layers(4)}},
			map[string]int{"step0:0": 1, "step3:0": 2, "step3:2": 3},
		},
		"too many": {
			map[digest.Digest][][]ocispec.Descriptor{digests[0]: {layers(1)}, digests[2]: {layers(6)}, digests[3]: {layers(6)}},
			map[string]int{"step3:0": 6},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &provenance.Build{Platform: amd64, Capture: &provenance.Capture{}, Definition: def, MaxLayers: 11, Layers: func(vertex digest.Digest) [][]ocispec.Descriptor {
				return tc.known[vertex]
			}}
			data, err := b.Predicate(provenance.Options{Max: true, Version: provenance.V1})
			require.NoError(t, err)
			var p struct {
				Run struct {
					Metadata struct {
						BuildKit struct {
							Layers map[string][][]ocispec.Descriptor `json:"layers"`
						} `json:"buildkit_metadata"`
					} `json:"metadata"`
				} `json:"runDetails"`
			}
			require.NoError(t, json.Unmarshal(data, &p))
			got := map[string]int{}
			for step, forms := range p.Run.Metadata.BuildKit.Layers {
				require.Len(t, forms, 1)
				got[step] = len(forms[0])
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestABuildIsHermeticIfAllIsKnownAndNothingHadANetwork(t *testing.T) {
	for name, tc := range map[string]struct {
		ops                []*pb.Op
		local              bool
		complete, hermetic bool
	}{
		"nothing":         {complete: true, hermetic: true},
		"without network": {ops: []*pb.Op{{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Network: pb.NetMode_NONE}}}}, complete: true, hermetic: true},
		"with network":    {ops: []*pb.Op{{Op: &pb.Op_Exec{Exec: &pb.ExecOp{}}}}, complete: true},
		"local":           {local: true},
		"nested build":    {ops: []*pb.Op{{Op: &pb.Op_Build{Build: &pb.BuildOp{}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &provenance.Capture{}
			for _, op := range tc.ops {
				c.Op(op)
			}
			if tc.local {
				c.Source(source.Material{Kind: source.MaterialLocal, Name: "context"})
			}
			require.Equal(t, tc.complete, len(c.Incomplete()) == 0)
			data, err := (&provenance.Build{Platform: amd64, Capture: c}).Predicate(provenance.Options{Version: provenance.V1})
			require.NoError(t, err)
			require.Equal(t, tc.hermetic, strings.Contains(string(data), `"buildkit_hermetic":true`), string(data))
			require.Equal(t, tc.complete, strings.Contains(string(data), `"resolvedDependencies":true`), string(data))
		})
	}
}

func TestASecretThatOneStepNeedsIsNotOptional(t *testing.T) {
	c := &provenance.Capture{}
	for _, optional := range []bool{true, false, true} {
		c.Op(&pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Secretenv: []*pb.SecretEnv{{ID: "s", Optional: optional}}}}})
	}
	data, err := (&provenance.Build{Platform: amd64, Capture: c}).Predicate(provenance.Options{Version: provenance.V1, Max: true})
	require.NoError(t, err)
	require.Contains(t, string(data), `"secrets":[{"id":"s"}]`)
}

func TestTheVersionOfDockerfilesIsToldWhereTheyHadAPart(t *testing.T) {
	with := func(r provenance.Request) string {
		b := &provenance.Build{Platform: amd64, Dockerfile: "1.2.3", Capture: &provenance.Capture{Request: r}}
		data, err := b.Predicate(provenance.Options{Version: provenance.V1})
		require.NoError(t, err)
		return string(data)
	}
	dockerfile := &provenance.Request{Frontend: "dockerfile.v0"}
	for _, r := range []provenance.Request{
		*dockerfile, {Frontend: "gateway.v0", Root: dockerfile}, {Inputs: map[string]*provenance.Request{"a": nil, "b": dockerfile}},
	} {
		require.Contains(t, with(r), `"dockerfileVersion":"1.2.3"`)
	}
	for _, r := range []provenance.Request{{}, {Frontend: "gateway.v0"}, {Inputs: map[string]*provenance.Request{"a": nil}}} {
		require.NotContains(t, with(r), "dockerfileVersion")
	}
}

func TestOptions(t *testing.T) {
	o, err := provenance.ParseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, provenance.Options{Max: true, Version: provenance.V1, Filename: "provenance.json"}, o)
	o, err = provenance.ParseOptions(map[string]string{
		"mode": "min", "version": "v0.2", "builder-id": "b", "filename": "f", "reproducible": "1", "inline-only": "true",
		"capture-usage": "true", "complete-materials": "true", "unknown": "x", "type": "provenance", "disabled": "false",
	})
	require.NoError(t, err)
	require.Equal(t, provenance.Options{
		Version: provenance.V02, BuilderID: "b", Filename: "f", Reproducible: true, InlineOnly: true, CaptureUsage: true, Complete: true,
		Unknown: []string{"unknown"},
	}, o)
	require.Equal(t, "https://slsa.dev/provenance/v0.2", o.Version.PredicateType())
	for attr, want := range map[string]string{
		"mode=most": `invalid mode "most"`, "version=v2": "invalid provenance SLSA version: v2",
		"reproducible=maybe": "failed to parse reproducible flag", "filename=../x": `invalid provenance filename "../x"`,
	} {
		k, v, _ := strings.Cut(attr, "=")
		_, err := provenance.ParseOptions(map[string]string{k: v})
		require.ErrorContains(t, err, want)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("mode", "min", "filename", "x")
	f.Fuzz(func(_ *testing.T, a, b, c, d string) {
		_, _ = provenance.ParseOptions(map[string]string{a: b, c: d})
	})
}

func FuzzDefinition(f *testing.F) {
	data, err := proto.Marshal(&pb.Op{Inputs: []*pb.Input{{Digest: "x"}}, Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://x"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, data)
	f.Fuzz(func(_ *testing.T, a, b []byte) {
		_, _ = (&provenance.Build{Platform: amd64, Capture: &provenance.Capture{}, Definition: &pb.Definition{
			Def: [][]byte{a, b}, Source: &pb.Source{Infos: []*pb.SourceInfo{nil, {Definition: &pb.Definition{Def: [][]byte{a}}}}},
		}}).Predicate(provenance.Options{Max: true})
	})
}
