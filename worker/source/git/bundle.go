//go:build linux

package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

// bundled is below which the refs of a bundle are in its repository.
const bundled = "refs/buildkit-bundle/"

// blob is a bundle in one build.
type blob struct {
	source.Instance
	key source.Key
}

// parseBundle reads where the bundle is that takes the place of the remote; nil without one. A
// store of the client is named by attributes or, as with images, by the name before the digest.
func (s *Source) parseBundle(attrs map[string]string, platform ocispec.Platform) (source.Identifier, error) {
	locator := attrs[pb.AttrGitBundle]
	if locator == "" {
		return nil, nil
	}
	scheme, ref, _ := strings.Cut(locator, "://")
	if s.cfg.Blobs == nil || !slices.Contains(s.cfg.Blobs.Schemes(), scheme) {
		return nil, fmt.Errorf("invalid %s %q: it names no blob", pb.AttrGitBundle, locator)
	}
	store := attrs[pb.AttrOCIStore]
	if store == "" {
		store, _, _ = strings.Cut(ref, "@")
	}
	id, err := s.cfg.Blobs.Parse(scheme, ref, map[string]string{
		pb.AttrOCISession: attrs[pb.AttrOCISession], pb.AttrOCIStore: store,
		pb.AttrHTTPFilename: bundleName, pb.AttrImageRecordType: string(cache.Internal),
	}, platform)
	if err != nil {
		return nil, fmt.Errorf("invalid %s: %w", pb.AttrGitBundle, err)
	}
	if attrs[pb.AttrGitChecksum] == "" {
		return nil, fmt.Errorf("%s requires %s", pb.AttrGitBundle, pb.AttrGitChecksum)
	}
	return id, nil
}

// lookIntoBundle finds the ref in the bundle. Who has it is asked in every build, as for a remote
// that wants credentials.
func (i *instance) lookIntoBundle(ctx context.Context) (*resolved, error) {
	inst, err := i.src.cfg.Blobs.Instance(i.id.From, i.env)
	if err != nil {
		return nil, err
	}
	key, _, err := inst.Key(ctx, 0)
	if err != nil {
		return nil, err
	}
	i.blob = &blob{inst, key}
	if named := i.id.named(); named != nil {
		return named, nil
	}
	what := strings.Join([]string{"git bundle", key.Value, i.id.Ref, i.id.Checksum}, "\x00")
	return source.Once(ctx, i.env.Memo, what, i.readBundle)
}

// readBundle finds the ref among those of the bundle. If it is not there it says nothing: what is
// wanted is the checksum, which then has to be in full.
func (i *instance) readBundle(ctx context.Context) (_ *resolved, err error) {
	repo, err := i.open(ctx)
	if err != nil {
		return nil, err
	}
	defer repo.closeWith(ctx, &err)
	args := []string{"--format=%(objectname)%09%(refname)%0a%(*objectname)%09%(refname)^{}", "--"}
	for _, name := range candidates(i.id.Ref) {
		args = append(args, bundled+name)
	}
	out, err := repo.run(ctx, runOpt{}, "for-each-ref", args...)
	if err != nil {
		return nil, err
	}
	if r := findRef(parseRefs(bytes.ReplaceAll(out, []byte("\t"+bundled), []byte("\t"))), i.id.Ref); r != nil {
		return r, nil
	}
	object := i.id.Checksum
	if !IsCommit(object) {
		return nil, fmt.Errorf("git bundle %s does not contain ref %s", i.id.From, i.id.Ref)
	}
	commit, err := repo.run(ctx, runOpt{}, "rev-parse", "--verify", "--quiet", "--end-of-options", object+"^{commit}")
	var failed *CommandError
	if errors.As(err, &failed) {
		return nil, repo.notBundled(object)
	}
	r := &resolved{ref: i.id.Ref, commit: string(bytes.TrimSpace(commit))}
	if r.commit != object {
		r.tag = object
	}
	return r, err
}

func (r *repository) notBundled(object string) error {
	return fmt.Errorf("git bundle %s does not contain commit %s", r.i.id.From, object)
}

// unbundle makes the repository out of the bundle. What a bundle lacks that its refs need, git
// finds out.
func (r *repository) unbundle(ctx context.Context) (err error) {
	file, err := r.i.blob.Fetch(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Release(context.WithoutCancel(ctx))) }()
	err = tree.OpenFile(ctx, file, func(f *os.File) error {
		head, err := r.without("GIT_DIR").run(ctx, runOpt{dir: r.dir}, "bundle", "list-heads", f.Name(), "HEAD")
		if err != nil {
			return err
		}
		if err := r.init(bundleFormat(f)); err != nil {
			return err
		}
		refspecs := []string{"+refs/*:" + bundled + "refs/*"}
		if len(head) > 0 {
			refspecs = append(refspecs, "+HEAD:"+bundled+"HEAD")
		}
		_, err = r.ofFiles().run(ctx, runOpt{}, "fetch",
			append([]string{"--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--", f.Name()}, refspecs...)...)
		return err
	})
	var failed *CommandError
	if errors.As(err, &failed) {
		err = fmt.Errorf("git bundle %s: %w", r.i.id.From, err)
	}
	return err
}

// bundleFormat returns the hash that the objects of a bundle have (gitformat-bundle(5)). Whether it
// is a bundle at all is for git to say.
func bundleFormat(r io.Reader) string {
	// The signature, and a line for each capability.
	const maxHeader = 64 << 10
	lines := bufio.NewScanner(io.LimitReader(r, maxHeader))
	for n := 0; lines.Scan() && (n == 0 || strings.HasPrefix(lines.Text(), "@")); n++ {
		if lines.Text() == "@object-format="+sha256 {
			return sha256
		}
	}
	return sha1
}
