package lower

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
)

var (
	errChecksumMany  = errors.New("checksum can't be specified for multiple sources")
	errChecksumLocal = errors.New("checksum requires HTTP(S) or Git sources")
)

func (b *Build) add(s *stage, c *cmd, inst *instruction.Add) error {
	t, err := b.expandTransfer(s, &inst.Transfer)
	if err != nil {
		return err
	}
	t.add = true
	t.unpack = inst.Unpack == nil || *inst.Unpack
	t.tree, t.fromContext = b.context.state, true
	if t.remote, err = b.remoteOptions(s, t, inst); err != nil {
		return err
	}
	return b.transfer(s, c, t)
}

// remoteOptions are those that hold for urls.
type remoteOptions struct {
	checksum   string
	keepGitDir *bool
	// unpack is set only if the file asks for it: what is downloaded is kept as it is.
	unpack bool
}

func (b *Build) remoteOptions(s *stage, t *transfer, inst *instruction.Add) (remoteOptions, error) {
	o := remoteOptions{keepGitDir: inst.KeepGitDir, unpack: inst.Unpack != nil && *inst.Unpack}
	var err error
	if o.checksum, err = b.expand(s, inst.Checksum, inst.Node()); err != nil || o.checksum == "" {
		return o, err
	}
	switch {
	case len(t.sources)+len(t.contents) > 1:
		return o, errChecksumMany
	case len(t.sources) == 0 || !isHTTPURL(t.sources[0]) && !IsGitURL(t.sources[0]):
		return o, errChecksumLocal
	}
	return o, nil
}

// remoteSource is a tree that a url yields.
type remoteSource struct {
	tree llb.State
	path string
	opts []llb.CopyOption
}

// remoteSource returns nil for a source that is no url.
func (b *Build) remoteSource(t *transfer, src, name string) (*remoteSource, error) {
	at := b.location(t.node.Location())
	switch {
	case IsGitURL(src):
		return gitSource(t.remote, src, name, at)
	case isHTTPURL(src):
		return httpSource(t.remote, src, name, at)
	}
	return nil, nil
}

func httpSource(o remoteOptions, src, name string, at llb.ConstraintsOpt) (*remoteSource, error) {
	u, err := url.Parse(src)
	if err != nil {
		return nil, fmt.Errorf("invalid url: %w", errors.Unwrap(err))
	}
	file := "__unnamed__"
	if base := path.Base(u.Path); base != "." && base != "/" && !strings.HasSuffix(u.Path, "/") {
		file = base
	}
	opts := []llb.HTTPOption{llb.Filename(file), llb.CustomName(name), command(""), at}
	if o.checksum != "" {
		dgst, err := digest.Parse(o.checksum)
		if err != nil {
			return nil, fmt.Errorf("invalid checksum %q: %w", o.checksum, err)
		}
		opts = append(opts, llb.Checksum(dgst))
	}
	r := &remoteSource{tree: llb.HTTP(src, opts...), path: path.Join("/", file)}
	if o.unpack {
		r.opts = append(r.opts, llb.UnpackArchive())
	}
	return r, nil
}

func isHTTPURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}
