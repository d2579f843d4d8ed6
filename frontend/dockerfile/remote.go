package dockerfile

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// remoteFile is the name of a context that is fetched as one file.
const remoteFile = "context"

// openContext finds a build context that is no directory of the client: a repository, a file at
// a url or an input of the frontend. The Dockerfile is then in it, unless the client names a
// local for that.
func (b *build) openContext(ctx context.Context) error {
	tree, err := b.remoteTree(ctx)
	if err != nil || tree == nil {
		return err
	}
	if dir := b.opts.contextSubdir; dir != "" {
		sub := llb.Scratch().File(llb.Copy(*tree, path.Join("/", dir), "/", llb.CopyDirContents()))
		tree = &sub
	}
	b.context = tree
	if b.opts.raw[optDockerfileKey] == "" && b.dockerfileTree == nil {
		b.dockerfileTree = tree
	}
	return nil
}

func (b *build) remoteTree(ctx context.Context) (*llb.State, error) {
	switch url := gitContext(b.opts.context); {
	case url == "":
		return b.inputTrees(ctx)
	case lower.IsGitURL(url):
		return b.gitContext(url)
	case strings.HasPrefix(url, "http://"), strings.HasPrefix(url, "https://"):
		return b.fetchContext(ctx, url)
	}
	// Anything else is what a client did with a local of its own.
	return nil, nil
}

// gitContext returns the url of a context. Clients give repositories on this one host without a
// scheme; no local has such a name.
func gitContext(url string) string {
	if strings.HasPrefix(url, "github.com/") {
		repo, rest := url, ""
		if i := strings.IndexAny(url, "#?"); i >= 0 {
			repo, rest = url[:i], url[i:]
		}
		return "https://" + strings.TrimSuffix(repo, ".git") + ".git" + rest
	}
	return url
}

// gitContext is the repository of the main context. If its time is that of the build, files have
// it too.
func (b *build) gitContext(url string) (*llb.State, error) {
	g, err := lower.ParseGitURL(url)
	if err != nil {
		return nil, err
	}
	if g.KeepDir == nil {
		g.KeepDir = &b.opts.keepGitDir
	}
	if g.MTime == "" && b.opts.buildArgs[lower.EpochArg] == epochContext {
		g.MTime = string(llb.GitMTimeCommit)
	}
	tree := g.State(internalName("load git source " + giturl.Redact(url)))
	return &tree, nil
}

func internalName(text string) llb.ConstraintsOpt { return llb.CustomName("[internal] " + text) }

// inputTrees takes context and Dockerfile from the inputs of the frontend.
func (b *build) inputTrees(ctx context.Context) (*llb.State, error) {
	inputs, err := b.client.Inputs(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to get frontend inputs: %w", err)
	}
	if b.dockerfileTree, err = inputTree(inputs, b.opts.dockerfileLocal); err != nil {
		return nil, err
	}
	return inputTree(inputs, b.opts.contextLocal)
}

// inputTree returns nil for an input that there is not.
func inputTree(inputs map[string]*pb.Definition, name string) (*llb.State, error) {
	def, ok := inputs[name]
	if !ok {
		return nil, nil
	}
	tree, err := llb.FromDefinition(def)
	if err != nil {
		return nil, fmt.Errorf("invalid input %s: %w", name, err)
	}
	return &tree, nil
}

// fetchContext downloads a context. An archive is unpacked; anything else is the Dockerfile.
func (b *build) fetchContext(ctx context.Context, url string) (*llb.State, error) {
	tree := llb.HTTP(url, llb.Filename(remoteFile), internalName("load remote build context"))
	ref, err := b.solveTree(ctx, tree)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve context: %w", err)
	}
	head, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: remoteFile, Range: &gateway.FileRange{Length: archiveHead}})
	if err != nil {
		return nil, fmt.Errorf("failed to read downloaded context: %w", err)
	}
	if !isArchive(head) {
		b.opts.filename = remoteFile
		return &tree, nil
	}
	unpacked := unpack(tree)
	return &unpacked, nil
}

// solveTree has a tree solved.
func (b *build) solveTree(ctx context.Context, tree llb.State) (gateway.Reference, error) {
	def, err := tree.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := b.client.Solve(ctx, gateway.SolveRequest{Definition: def})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// unpack returns what the archive in a tree that was fetched as one file holds.
func unpack(tree llb.State) llb.State {
	return llb.Scratch().File(llb.Copy(tree, "/"+remoteFile, "/", llb.UnpackArchive(), llb.CreateDestPath()))
}

// archiveHead is how much of a file tells whether it is an archive, in bytes.
const archiveHead = 1024

// isArchive tells from its first bytes whether a file is a tar archive, compressed or not.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}
