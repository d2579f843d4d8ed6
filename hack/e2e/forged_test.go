package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// outputsTo returns an output of every type that does not push, to a folder.
func outputsTo(t *testing.T, dir string) map[string]bkclient.Export {
	t.Helper()
	archive := func(name string) bkclient.Export {
		return bkclient.Export{Type: name, Output: func(map[string]string) (io.WriteCloser, error) { return os.Create(filepath.Join(dir, name+".tar")) }}
	}
	return map[string]bkclient.Export{
		"image": {Type: "image", Attrs: map[string]string{"name": "example.org/forged:1"}},
		"oci":   archive("oci"), "docker": archive("docker"), "tar": archive("tar"),
		"local": {Type: "local", OutputDir: filepath.Join(dir, "local")},
	}
}

// What a frontend says of its result may be anything; it is an error that says what is wrong, whatever the
// output is.
func TestForgedAttestationsAreErrorsForEveryOutput(t *testing.T) {
	d, _ := startWithRegistry(t, harness.DaemonOptions{})
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	const spdx = "https://spdx.dev/Document"
	sbom := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"` + spdx + `","subject":null,"predicate":{}}`
	file := func(name, text string) llb.State {
		return llb.Scratch().File(llb.Mkdir("/d", 0o755, llb.WithParents()).Mkfile(name, 0o644, []byte(text)))
	}
	to := func(s llb.State) *llb.State { return &s }
	large := llb.Image("busybox").Run(llb.Shlex(`sh -c "truncate -s 40000k /large; truncate -s 41000k /larger"`)).Root()
	link := llb.Image("busybox").Run(llb.Shlex(`sh -c "mkdir /d && ln -s /etc/passwd /d/p.json && ln -s /etc/passwd /p.json && ln -s / /all && mkfifo /f"`)).Root()
	for name, tc := range map[string]struct {
		tree     *llb.State
		platform string
		att      gateway.Attestation
		want     string
	}{
		"an unknown kind":                {att: gateway.Attestation{Kind: 9, PredicateType: "x"}, want: "unknown attestation kind 9"},
		"a subject of an unknown kind":   {att: gateway.Attestation{PredicateType: "x", Subjects: []gateway.Subject{{Kind: 7}}}, want: "unknown subject kind 7"},
		"a digest that is none":          {att: gateway.Attestation{PredicateType: "x", Subjects: []gateway.Subject{{Kind: 1, Digest: []digest.Digest{"x"}}}}, want: `digest "x" of its subject`},
		"a platform that is not built":   {platform: "linux/s390x", att: gateway.Attestation{PredicateType: "x", Path: "/d/p.json"}, want: `is about "linux/s390x", which is no part of the result`},
		"an empty platform":              {platform: "-", att: gateway.Attestation{PredicateType: "x", Path: "/d/p.json"}, want: `is about "", which is no part of the result`},
		"provenance":                     {att: gateway.Attestation{PredicateType: "https://slsa.dev/provenance/v1", Path: "/d/p.json"}, want: "only the builder may state https://slsa.dev/provenance/v1"},
		"provenance in a bundle":         {tree: to(file("/d/p.json", `{"predicateType":"https://slsa.dev/provenance/v0.2","predicate":{}}`)), att: gateway.Attestation{Kind: 1, Path: "/d"}, want: "only the builder may state https://slsa.dev/provenance/v0.2"},
		"no predicate type":              {att: gateway.Attestation{Path: "/d/p.json"}, want: "has no predicate type"},
		"another type than the bundle's": {tree: to(file("/d/p.json", sbom)), att: gateway.Attestation{Kind: 1, Path: "/d", PredicateType: "https://example.org/x"}, want: "does not match required predicate type"},
		"a path that leaves the tree":    {att: gateway.Attestation{PredicateType: "x", Path: "../../../etc/hostname"}, want: `attestation "../../../etc/hostname"`},
		"a link out of the tree":         {tree: to(link), att: gateway.Attestation{PredicateType: "x", Path: "/p.json"}, want: "is not a regular file"},
		"a link out of a bundle":         {tree: to(link), att: gateway.Attestation{Kind: 1, Path: "/d"}, want: "is not a regular file"},
		"a path through a link":          {tree: to(link), att: gateway.Attestation{PredicateType: "x", Path: "/all/etc/passwd"}, want: `attestation "/all/etc/passwd"`},
		"a pipe":                         {tree: to(link), att: gateway.Attestation{PredicateType: "x", Path: "/f"}, want: "is not a regular file"},
		"a folder in a bundle":           {tree: to(file("/d/sub", "").File(llb.Mkdir("/d/a", 0o755))), att: gateway.Attestation{Kind: 1, Path: "/d"}, want: "is not a regular file"},
		"a file that is too large":       {tree: to(large), att: gateway.Attestation{PredicateType: "x", Path: "/larger"}, want: "is larger than 41943040 bytes"},
		"a large file of nothing":        {tree: to(large), att: gateway.Attestation{PredicateType: "x", Path: "/large"}, want: "is no JSON object"},
		"a file that is not there":       {att: gateway.Attestation{PredicateType: "x", Path: "/none"}, want: `attestation "/none"`},
		"text":                           {tree: to(file("/d/p.json", "no json")), att: gateway.Attestation{PredicateType: "x", Path: "/d/p.json"}, want: "is no JSON object"},
		"two values":                     {tree: to(file("/d/p.json", "{}{}")), att: gateway.Attestation{PredicateType: "x", Path: "/d/p.json"}, want: "is no JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for output, export := range outputsTo(t, dir) {
				tree, att := tc.tree, tc.att
				if tree == nil {
					tree = to(file("/d/p.json", "{}"))
				}
				_, err := c.Build(t.Context(), bkclient.SolveOpt{Exports: []bkclient.Export{export}}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
					res, err := g.Solve(ctx, gateway.SolveRequest{Definition: marshal(t, file("/made", "made"))})
					if err != nil {
						return nil, err
					}
					said, err := g.Solve(ctx, gateway.SolveRequest{Definition: marshal(t, *tree)})
					if err != nil {
						return nil, err
					}
					if att.Ref, err = said.SingleRef(); err != nil {
						return nil, err
					}
					platform := tc.platform
					switch platform {
					case "":
						platform = platforms.Format(platforms.Normalize(platforms.DefaultSpec()))
					case "-":
						platform = ""
					}
					res.Attestations = map[string][]gateway.Attestation{platform: {att}}
					return res, nil
				})
				require.ErrorContains(t, err, tc.want, output)
				require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", output, err)
				require.NoFileExists(t, filepath.Join(dir, "local", "made"))
			}
		})
	}
	d.RequireIdle(t)
}

// A platform may have any name; as that of a folder it leads nowhere else.
func TestNamesOfPlatformsLeadNowhereElse(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	for i, id := range []string{"..", "../../x", "/", ".", "a\x00b", "linux/../.."} {
		dir := filepath.Join(t.TempDir(), "a", "b", "c")
		_, err := c.Build(t.Context(), bkclient.SolveOpt{
			FrontendAttrs: map[string]string{"attest:provenance": "mode=min"},
			Exports:       []bkclient.Export{{Type: "local", OutputDir: dir}},
		}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			made, err := g.Solve(ctx, gateway.SolveRequest{Definition: marshal(t, llb.Scratch().File(llb.Mkfile("/made", 0o644, nil)))})
			if err != nil {
				return nil, err
			}
			ref, err := made.SingleRef()
			if err != nil {
				return nil, err
			}
			ps, err := json.Marshal(map[string]any{"Platforms": []any{
				map[string]any{"ID": id, "Platform": ocispec.Platform{OS: "linux", Architecture: "amd64"}},
			}})
			if err != nil {
				return nil, err
			}
			res := &gateway.Result{}
			res.SetMeta("refs.platforms", ps)
			res.AddRef(id, ref)
			return res, nil
		})
		outside := 0
		require.NoError(t, filepath.WalkDir(filepath.Dir(filepath.Dir(filepath.Dir(dir))), func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && !within(dir, path) {
				outside++
			}
			return err
		}))
		require.Zero(t, outside, "%d: %v", i, err)
	}
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
