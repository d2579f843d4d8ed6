//go:build linux

package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/worker/source"
)

// instance is a repository in one build.
type instance struct {
	src *Source
	id  *Identifier
	env source.Env
	// auth is the header for the remote, nil for none, once authorized is true.
	auth       *header
	authorized bool
	// asked are the sessions that auth is of, or that have nothing for the remote; agent is the one
	// whose agent ssh uses, empty for none.
	asked []string
	agent string
	// blob is the bundle instead of the remote; nil until it was asked for.
	blob *blob
	// found is what the ref stands for; nil until the remote was asked.
	found *resolved
}

// resolved is what a ref stands for.
type resolved struct {
	// ref is the full name; empty if a commit was asked for.
	ref string
	// commit is the commit, tag the object of an annotated tag, empty if there is none.
	commit, tag string
	// remote is where the repository has moved to, empty if it has not.
	remote string
}

// object is the tag object or, without one, the commit.
func (r *resolved) object() string {
	if r.tag != "" {
		return r.tag
	}
	return r.commit
}

// Key returns the key of the commit.
func (i *instance) Key(ctx context.Context, _ int) (source.Key, bool, error) {
	if err := i.resolve(ctx); err != nil {
		return source.Key{}, false, err
	}
	return source.Key{Value: i.key(), Pin: i.found.commit, Session: i.oneSession()}, true, nil
}

// key returns the key of the tree of what the ref was resolved to.
func (i *instance) key() string {
	id, r := i.id, i.found
	k := r.commit
	if id.keepDir() {
		k = r.object() + ".git#" + id.Ref
	}
	if id.Subdir != "" {
		k += ":" + id.Subdir
	}
	if id.SkipSubmodules {
		k += "(skip-submodules)"
	}
	if id.MTime == MTimeCommit {
		k += "(mtime=commit)"
	}
	if i.env.Compat == compat.V10 {
		k += "(0666)"
	}
	if id.Bundle {
		k += "(bundle " + r.object() + " " + r.ref + ")"
	}
	if id.Signature != nil {
		// What was not verified is another one; so is what another tag stood for.
		k += "(signed " + id.Signature.id + " " + r.object() + ")"
	}
	k += " " + i.repository()
	if id.From != nil {
		// It is where submodules are, and what a kept .git names.
		k += " of " + id.Remote.Remote()
	}
	return k
}

// repository names the bundle, or the remote and whether its commits are only for those who have
// credentials. A commit is no secret: it counts for what has shown to have it, to those who asked
// in the same way.
func (i *instance) repository() string {
	if i.id.From != nil {
		return "bundle " + i.blob.key.Value
	}
	name := i.id.Remote.Remote()
	if i.private() {
		name += " (private)"
	}
	return name
}

// oneSession tells whether the key holds for the session only: a bundle may be a file of the
// client, and nobody has asked the remote, whose submodules it may come with, about credentials.
func (i *instance) oneSession() bool {
	return i.blob != nil && (i.blob.key.Session || i.private() && !i.id.SkipSubmodules)
}

// resolve finds out what the ref stands for, once in a build.
func (i *instance) resolve(ctx context.Context) error {
	if i.found != nil {
		return nil
	}
	r, err := i.lookUp(ctx)
	if err != nil {
		return err
	}
	if c := i.id.Checksum; c != "" && !strings.HasPrefix(r.commit, c) && !strings.HasPrefix(r.tag, c) {
		return &ChecksumError{Want: c, Got: r.object(), Commit: r.commit}
	}
	i.found = r
	return nil
}

// ChecksumError says that a ref is not what it was meant to be.
type ChecksumError struct {
	// Want is the beginning that was expected; Got is the object of the ref, Commit the commit.
	Want, Got, Commit string
}

// Error returns the text that clients know.
func (e *ChecksumError) Error() string {
	if e.Got != e.Commit {
		return fmt.Sprintf("expected checksum to match %s, got %s or %s", e.Want, e.Got, e.Commit)
	}
	return fmt.Sprintf("expected checksum to match %s, got %s", e.Want, e.Got)
}

func (i *instance) lookUp(ctx context.Context) (*resolved, error) {
	if err := i.authorize(ctx); err != nil {
		return nil, err
	}
	if i.id.From != nil {
		return i.lookIntoBundle(ctx)
	}
	once := func(what string, fn func(context.Context) (*resolved, error)) (*resolved, error) {
		key := strings.Join([]string{"git", i.repository(), i.id.AuthHeader, i.id.AuthToken, i.id.Agent, what}, "\x00")
		return source.Once(ctx, i.env.Memo, key, fn)
	}
	named := i.id.named()
	if named == nil {
		return once("ref "+i.id.Ref, i.ask)
	}
	if i.private() {
		// That the commit is here is nothing to those whose credentials don't do.
		there, err := once("knock", i.knock)
		if err != nil {
			return nil, err
		}
		named.remote = there.remote
	}
	return named, nil
}

// private tells whether the remote is asked with credentials.
func (i *instance) private() bool { return i.auth != nil || i.id.Agent != "" }

// knock makes sure that the remote answers.
func (i *instance) knock(ctx context.Context) (*resolved, error) {
	_, remote, err := i.listRemote(ctx, "HEAD")
	return &resolved{remote: remote}, err
}

// listRemote asks the remote for refs, and returns where it has moved to.
func (i *instance) listRemote(ctx context.Context, patterns ...string) (out []byte, remote string, err error) {
	out, err = i.listAt(ctx, "", patterns)
	if err != nil {
		if remote = i.follow(ctx, err); remote != "" {
			out, err = i.listAt(ctx, remote, patterns)
		}
	}
	if err != nil {
		return nil, "", i.explain(err)
	}
	return out, remote, nil
}

func (i *instance) listAt(ctx context.Context, moved string, patterns []string) (_ []byte, err error) {
	a, err := i.access(ctx, moved)
	if err != nil {
		return nil, err
	}
	defer a.closeWith(&err)
	remote := cmp.Or(moved, i.id.Remote.Remote())
	return a.run(ctx, runOpt{show: true, remote: true}, "ls-remote", append([]string{"--symref", "--", remote}, patterns...)...)
}

// ask asks the remote for the ref.
func (i *instance) ask(ctx context.Context) (*resolved, error) {
	patterns := []string{i.id.Ref, i.id.Ref + "^{}"}
	if i.id.Ref == "" {
		patterns = []string{"HEAD"}
	}
	out, remote, err := i.listRemote(ctx, patterns...)
	var failed *RemoteError
	if errors.As(err, &failed) {
		failed.Default = i.id.Ref == ""
	}
	if err != nil {
		return nil, err
	}
	r := findRef(parseRefs(out), i.id.Ref)
	if r == nil {
		return nil, fmt.Errorf("repository does not contain ref %s, output: %q", i.id.Ref, out)
	}
	r.remote = remote
	for line := range bytes.Lines(out) {
		if name := strings.TrimSuffix(fieldAfterTab(line), "^{}"); name == r.ref || i.id.Ref == "" {
			i.env.Scope.Log(event.Stdout, bytes.Clone(line))
		}
	}
	return r, nil
}

// RemoteError is the failure of a remote, or of that of a submodule.
type RemoteError struct {
	// Remote is shown without credentials.
	Remote string
	// Default is true if it was asked for its default branch.
	Default bool
	Err     error
}

// Error names the remote, in the words that clients know.
func (e *RemoteError) Error() string {
	if e.Default {
		return fmt.Sprintf("error fetching default branch for repository %s: %v", e.Remote, e.Err)
	}
	return fmt.Sprintf("failed to fetch remote %s: %v", e.Remote, e.Err)
}

// Unwrap returns the failure of git.
func (e *RemoteError) Unwrap() error { return e.Err }

// denials is what git and ssh say when credentials are missing or do not do.
var denials = []string{
	"could not read Username", "could not read Password", "Authentication failed", "Permission denied",
	"returned error: 401", "returned error: 403",
}

// Code returns PermissionDenied if others may have better credentials.
func (e *RemoteError) Code() codes.Code {
	var failed *CommandError
	if errors.As(e.Err, &failed) && slices.ContainsFunc(denials, func(d string) bool { return strings.Contains(failed.Stderr, d) }) {
		return codes.PermissionDenied
	}
	return codes.Unknown
}

// remote is where the repository is.
func (i *instance) remote() string { return cmp.Or(i.moved(), i.id.Remote.Remote()) }

// moved is where the repository has moved to, empty if it has not or was not asked.
func (i *instance) moved() string {
	if i.found == nil {
		return ""
	}
	return i.found.remote
}

// explain names the remote in the failure of a command. If it is that credentials do not do, it is
// the fault of those who have given them, or had none; others are asked when it is tried again.
func (i *instance) explain(err error) error {
	var failed *CommandError
	if !errors.As(err, &failed) {
		return err
	}
	remote := &RemoteError{Remote: i.id.Remote.String(), Err: err}
	if remote.Code() != codes.PermissionDenied {
		return remote
	}
	i.authorized = false
	asked := i.asked
	if i.agent != "" {
		asked = []string{i.agent}
	}
	return session.BlameAll(asked, remote)
}

// closeWith releases a, and reports that in *err.
func (a *access) closeWith(err *error) {
	if e := a.release(); *err == nil {
		*err = e
	}
}

// refs is what ls-remote tells: objects by name, and where symbolic refs point.
type refs struct {
	objects, targets map[string]string
}

func fieldAfterTab(line []byte) string {
	_, name, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), "\t")
	return name
}

// parseRefs reads the output of ls-remote --symref. Lines of another form are passed over.
func parseRefs(out []byte) refs {
	r := refs{map[string]string{}, map[string]string{}}
	for line := range bytes.Lines(out) {
		name := fieldAfterTab(line)
		value, _, _ := strings.Cut(string(line), "\t")
		if target, ok := strings.CutPrefix(value, "ref: "); ok {
			r.targets[name] = target
		} else if IsCommit(value) && name != "" {
			r.objects[name] = value
		}
	}
	return r
}

// candidates are the full names that a name may stand for, the first that exists.
func candidates(name string) []string {
	if name == "" {
		return []string{"HEAD"}
	}
	names := []string{"refs/" + name, "refs/heads/" + name, "refs/tags/" + name}
	if strings.HasPrefix(name, "refs/") || name == "HEAD" {
		names = append([]string{name}, names...)
	}
	return names
}

// findRef returns what a name stands for: a name below refs/, a branch or a tag, in that order;
// without a name, the branch that HEAD is. It returns nil if there is none.
func findRef(r refs, name string) *resolved {
	if name == "" {
		commit := r.objects["HEAD"]
		if commit == "" {
			return nil
		}
		branch := r.targets["HEAD"]
		if !isRef(branch) || !strings.HasPrefix(branch, "refs/") {
			branch = "HEAD"
		}
		return &resolved{ref: branch, commit: commit}
	}
	for _, full := range candidates(name) {
		object := r.objects[full]
		if object == "" {
			continue
		}
		if peeled := r.objects[full+"^{}"]; peeled != "" {
			return &resolved{ref: full, commit: peeled, tag: object}
		}
		return &resolved{ref: full, commit: object}
	}
	return nil
}

// Fetch returns the files of the commit. A repository that turns out to be damaged is made anew.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	if err := i.resolve(ctx); err != nil {
		return nil, err
	}
	ref, err := i.tryFetch(ctx)
	var damaged *damagedError
	if errors.As(err, &damaged) && damaged.reused {
		ref, err = i.tryFetch(ctx)
	}
	return ref, err
}

func (i *instance) tryFetch(ctx context.Context) (_ *cache.Ref, err error) {
	repo, err := i.open(ctx)
	if err != nil {
		return nil, err
	}
	defer repo.closeWith(ctx, &err)
	if err := repo.fetch(ctx, i.found, i.wants()); err != nil {
		return nil, err
	}
	if err := repo.verify(ctx, i.found, i.id.Signature); err != nil {
		return nil, err
	}
	i.env.Scope.Log(event.Stdout, []byte(i.found.commit+"\n"))
	ref, err := i.checkOut(ctx, repo)
	var failed *CommandError
	var remote *RemoteError
	if errors.As(err, &failed) && !errors.As(err, &remote) {
		repo.whole = false
		return nil, &damagedError{reused: repo.reused, err: err}
	}
	return ref, err
}

// damagedError is a failure of git where it only has to read what was fetched.
type damagedError struct {
	// reused is true if the repository is of an earlier job.
	reused bool
	err    error
}

func (e *damagedError) Error() string { return e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// wants says what has to be fetched of the commit.
func (i *instance) wants() wants {
	return wants{tag: i.id.keepDir() || i.id.Bundle || i.id.Signature != nil, history: i.id.Bundle, byCommit: i.id.FetchByCommit}
}
