package lower

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

var (
	errCopyGit = errors.New("source can't be a git ref for COPY")
	errCopyURL = errors.New("source can't be a URL for COPY")
)

// transfer is a COPY or ADD with its words expanded.
type transfer struct {
	node *parser.Node
	// system is the one that paths are written for.
	system   string
	sources  []string
	contents []instruction.Content
	dest     string
	exclude  []string
	// chown and chmod are as shown in the history.
	chown, chmod string
	link         bool
	parents      bool
	add          bool
	unpack       bool
	// tree is what is copied from; fromContext tells that it is the build context.
	tree        llb.State
	fromContext bool
	// remote holds for urls of ADD.
	remote remoteOptions
}

// expandTransfer expands the words that COPY and ADD have in common.
func (b *Build) expandTransfer(s *stage, t *instruction.Transfer) (tr *transfer, err error) {
	tr = &transfer{node: t.Node(), link: t.Link, system: s.platform.OS}
	if tr.sources, err = b.expandAll(s, t.Sources, tr.node); err != nil {
		return nil, err
	}
	if tr.dest, err = b.expand(s, t.Dest, tr.node); err != nil {
		return nil, err
	}
	if tr.chown, err = b.expand(s, t.Chown, tr.node); err != nil {
		return nil, err
	}
	if tr.chmod, err = b.expand(s, t.Chmod, tr.node); err != nil {
		return nil, err
	}
	if tr.exclude, err = b.expandAll(s, t.Exclude, tr.node); err != nil {
		return nil, err
	}
	for _, c := range t.Contents {
		if c.Expand {
			r, err := b.expandWith(b.lex.heredoc(), c.Data, s.env)
			if err != nil {
				return nil, err
			}
			b.reportUnset(s, tr.node, r.Unmatched)
			c.Data = r.Text
		}
		tr.contents = append(tr.contents, c)
	}
	return tr, nil
}

func (b *Build) copy(s *stage, c *cmd, inst *instruction.Copy) error {
	t, err := b.expandTransfer(s, &inst.Transfer)
	if err != nil {
		return err
	}
	for _, src := range t.sources {
		switch {
		case IsGitURL(src):
			return errCopyGit
		case isHTTPURL(src):
			return errCopyURL
		}
	}
	t.parents = inst.Parents
	if c.from == nil {
		t.tree, t.fromContext = b.context.state, true
	} else {
		if c.from.image == nil {
			return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", inst.From, s.name)
		}
		t.tree = c.from.state
	}
	return b.transfer(s, c, t)
}

// transfer lowers a COPY or ADD.
func (b *Build) transfer(s *stage, c *cmd, t *transfer) error {
	opts, err := b.copyOptions(t)
	if err != nil {
		return err
	}
	text := display(c, b.lex.word(), s.env)
	name := b.step(s, text, true)
	at, err := slashed(s.platform.OS, t.dest)
	if err != nil {
		return err
	}
	dest := destPath(s.dir(), at)
	var history strings.Builder
	history.WriteString(t.history())

	var action *llb.FileAction
	for _, src := range t.sources {
		history.WriteString(" " + src)
		if action, err = b.copySource(t, action, src, dest, name, opts); err != nil {
			return err
		}
	}
	for _, doc := range t.contents {
		history.WriteString(" <<" + doc.Name)
		if action, err = b.copyContent(action, doc, dest, opts); err != nil {
			return err
		}
	}
	common := append(b.ignoreCache(s), b.location(t.node.Location()))
	if t.link && b.opt.MergeOp && t.chmod == "" {
		s.state = b.merge(s, action, name, strings.TrimSuffix(name, text)+"LINK "+text, common)
	} else {
		s.state = s.state.File(action, append(common, llb.CustomName(name))...)
	}
	history.WriteString(" " + t.dest + " # buildkit")
	s.commit(b.epoch, history.String(), true)
	return nil
}

// merge copies into an empty tree and lays that over the stage, so that the copy does not depend
// on what is below.
func (b *Build) merge(s *stage, action *llb.FileAction, name, linkName string, common []llb.ConstraintsOpt) llb.State {
	if s.state.IsScratch() {
		return s.state.File(action, append(common, llb.CustomName(name))...)
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%d %s", s.index, name)))
	group := hex.EncodeToString(sum[:])[:25]
	common = slices.Clip(common)
	layer := llb.Scratch().File(action, append(common, llb.CustomName(name), llb.ProgressGroup(group, name, true))...)
	return llb.Merge([]llb.State{s.state, layer}, append(common, llb.CustomName(linkName), llb.ProgressGroup(group, name, false))...)
}

func (t *transfer) history() string {
	h := "COPY"
	if t.add {
		h = "ADD"
	}
	if t.parents {
		h += " --parents"
	}
	if t.chown != "" {
		h += " --chown=" + t.chown
	}
	if t.chmod != "" {
		h += " --chmod=" + t.chmod
	}
	return h
}

// copyOptions are the options of all actions of a transfer.
func (b *Build) copyOptions(t *transfer) ([]llb.CopyOption, error) {
	opts := []llb.CopyOption{llb.CreateDestPath()}
	if t.chown != "" {
		opts = append(opts, llb.WithOwner(llb.ParseOwner(t.chown)))
	}
	switch c := t.chmod; {
	case c == "":
	case c[0] >= '0' && c[0] <= '9':
		bits, err := strconv.ParseUint(c, 8, 32)
		if err != nil || bits > 0o7777 {
			return nil, fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", c)
		}
		opts = append(opts, llb.CopyMode(uint32(bits)))
	default:
		if _, err := mode.Parse(c); err != nil {
			return nil, err
		}
		opts = append(opts, llb.CopyModeText(c))
	}
	return opts, nil
}

// copySource adds the copy of one source.
func (b *Build) copySource(t *transfer, action *llb.FileAction, src, dest, name string, common []llb.CopyOption) (*llb.FileAction, error) {
	if t.add {
		remote, err := b.remoteSource(t, src, name)
		if err != nil {
			return nil, err
		}
		if remote != nil {
			return action.Copy(remote.tree, remote.path, dest, append(common[:len(common):len(common)], remote.opts...)...), nil
		}
	}
	src, err := slashed(t.system, src)
	if err != nil {
		return nil, err
	}
	if err := b.checkIgnored(t, src); err != nil {
		return nil, err
	}
	opts := append(common[:len(common):len(common)],
		llb.FollowSymlinks(), llb.CopyDirContents(), llb.AllowWildcard(), llb.AllowEmptyWildcard())
	if len(t.exclude) > 0 {
		opts = append(opts, llb.CopyExclude(t.exclude...))
	}
	if t.add && t.unpack {
		opts = append(opts, llb.UnpackArchive())
	}
	p := path.Join("/", src)
	if t.fromContext {
		b.context.need(p)
	}
	if t.parents {
		var parentOpts []llb.CopyOption
		p, parentOpts = keepParents(src)
		opts = append(opts, parentOpts...)
	}
	return action.Copy(t.tree, p, dest, opts...), nil
}

// keepParents returns what to copy for a source whose parents are kept: all of them, or those
// after a "/./".
func keepParents(src string) (string, []llb.CopyOption) {
	root, pattern := "/", strings.TrimPrefix(src, "./")
	if before, after, ok := strings.Cut(pattern, "/./"); ok {
		root, pattern = path.Join("/", before), after
	}
	pattern = strings.TrimPrefix(path.Join("/", pattern), "/")
	if pattern == "" {
		return root, nil
	}
	opts := []llb.CopyOption{llb.CopyInclude(pattern)}
	if !hasWildcard(pattern) && !hasWildcard(root) {
		opts = append(opts, llb.CopyRequire(path.Join(root, pattern)))
	}
	return root, opts
}

func hasWildcard(p string) bool { return strings.ContainsAny(p, "*?[") }

// copyContent adds the copy of a file that is written in the Dockerfile.
func (b *Build) copyContent(action *llb.FileAction, doc instruction.Content, dest string, opts []llb.CopyOption) (*llb.FileAction, error) {
	tree, name, err := b.document(doc.Name, 0o644, doc.Data)
	if err != nil {
		return nil, err
	}
	return action.Copy(tree, name, dest, opts...), nil
}

// document returns a tree that holds nothing but a here-document, and the path of that.
func (b *Build) document(name string, perm fs.FileMode, data string) (tree llb.State, file string, err error) {
	file = path.Join("/", name)
	if path.Dir(file) != "/" || file == "/" {
		return tree, "", fmt.Errorf("here-document %q cannot be the name of a file", name)
	}
	tree = llb.Scratch().File(
		llb.Mkfile(file, perm, []byte(data), b.mkfileOptions()...),
		internalName("preparing inline document"),
	)
	return tree, file, nil
}

// destPath returns an absolute destination. One that is meant as a directory ends in a slash.
func destPath(cwd, dest string) string {
	p := path.Join("/", cwd, dest)
	if path.IsAbs(dest) {
		p = path.Clean(dest)
	}
	if p != "/" && (dest == "" || dest == "." || strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")) {
		p += "/"
	}
	return p
}

// What warnings about .dockerignore are worth: patterns that are compiled, and comparisons of a path
// with one. The client leaves files out whether there is a warning or not.
const (
	maxPatterns = 10_000
	maxCompared = 1_000_000
)

// checkIgnored reports a source that .dockerignore excludes.
func (b *Build) checkIgnored(t *transfer, src string) error {
	p := strings.TrimPrefix(path.Join("/", src), "/")
	if b.ignore == nil || !t.fromContext || p == "" || hasWildcard(p) || !b.opt.Linter.Wants(lint.CopyIgnoredFile, t.node) {
		return nil
	}
	patterns := len(b.ignore.Patterns())
	if b.compared += patterns; patterns > maxPatterns || b.compared > maxCompared {
		return nil
	}
	matched, err := b.ignore.MatchesOrParentMatches(p)
	if err != nil || !matched {
		return err
	}
	for _, pattern := range b.ignore.Patterns() {
		if pattern.Exclusion() && strings.HasPrefix(pattern.String(), p+"/") {
			// Something below it is there all the same.
			return nil
		}
	}
	verb := "Copy"
	if t.add {
		verb = "Add"
	}
	b.opt.Linter.Report(lint.CopyIgnoredFile, t.node, "Attempting to %s file %q that is excluded by .dockerignore", verb, src)
	return nil
}
