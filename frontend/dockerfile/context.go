package dockerfile

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/moby/patternmatcher/ignorefile"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
)

const (
	ignoreName   = ".dockerignore"
	ignoreSuffix = ".dockerignore"
)

// ignoreFile is a parsed .dockerignore.
type ignoreFile struct {
	patterns []string
}

// maxIgnoreSize is the size in bytes of the largest .dockerignore that is accepted.
const maxIgnoreSize = 4 << 20

// readIgnore reads a .dockerignore. One that cannot be read is no error but is not ok.
func readIgnore(ctx context.Context, ref gateway.Reference, name string) (file *ignoreFile, ok bool, err error) {
	// One byte more than is allowed shows that there is more.
	data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: name, Range: &gateway.FileRange{Length: maxIgnoreSize + 1}})
	if err != nil {
		return nil, false, context.Cause(ctx)
	}
	if len(data) > maxIgnoreSize {
		return nil, false, fmt.Errorf("failed parsing %s: it has more than the allowed %d bytes", name, maxIgnoreSize)
	}
	file, err = parseIgnore(data)
	return file, true, err
}

// parseIgnore parses a .dockerignore; the patterns in it are not checked.
func parseIgnore(data []byte) (*ignoreFile, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("failed parsing %s: %w", ignoreName, err)
	}
	return &ignoreFile{patterns: patterns}, nil
}

// loadIgnoreOnce returns a function that loads the .dockerignore at its first call, for all
// platforms.
func (b *build) loadIgnoreOnce(ctx context.Context) func() (*ignoreFile, error) {
	return sync.OnceValues(func() (*ignoreFile, error) { return b.loadIgnore(ctx) })
}

// loadIgnore loads the .dockerignore beside the Dockerfile or, without one, that of the context.
func (b *build) loadIgnore(ctx context.Context) (*ignoreFile, error) {
	if b.context != nil {
		return nil, nil
	}
	if file, ok, err := readIgnore(ctx, b.file.ref, b.opts.filename+ignoreSuffix); ok || err != nil {
		return file, err
	}
	// A context that cannot be read is no error yet: the build may not need it.
	return b.loadLocalIgnore(ctx, b.opts.contextLocal, "[internal] load "+ignoreName, false)
}

// loadLocalIgnore loads the .dockerignore of a directory of the client; nil if there is none, or
// if the directory cannot be read and need not be.
func (b *build) loadLocalIgnore(ctx context.Context, name, title string, must bool) (*ignoreFile, error) {
	tree := b.localTree(name, name+"-"+ignoreName, title,
		llb.FollowPaths(ignoreName), llb.Differ(llb.DifferNone, false))
	def, err := tree.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := b.client.Solve(ctx, gateway.SolveRequest{Definition: def, Evaluate: must})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err != nil || ref == nil {
		return nil, err
	}
	file, _, err := readIgnore(ctx, ref, ignoreName)
	return file, err
}

// contextTree returns the build context with at least paths; nil means all of it.
func (b *build) contextTree(paths []string, ignored *ignoreFile) llb.State {
	if b.context != nil {
		return *b.context
	}
	var opts []llb.LocalOption
	if ignored != nil && len(ignored.patterns) > 0 {
		opts = append(opts, llb.ExcludePatterns(ignored.patterns...))
	}
	if paths != nil {
		opts = append(opts, llb.FollowPaths(paths...))
	}
	return b.localTree(b.opts.contextLocal, b.opts.contextLocal, "[internal] load build context", opts...)
}
