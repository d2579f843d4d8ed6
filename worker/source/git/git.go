//go:build linux

// Package git is the source of git://: the files of a commit in a repository.
//
// A ref is resolved to a commit once in a build, and the build uses that commit throughout, also
// if the ref moves. Commits are fetched into one bare repository for each remote, which is kept as
// a mutable cache record for the next build; builds that want the same remote wait for each other.
// What is fetched is as little as the job allows: the commit alone, where the server gives it.
//
// The work is done by the git program (run.go), which is told to read no configuration of the
// machine, run no hook and filter, ask nobody, and speak http, https, ssh and git only. Refs,
// directories and urls are checked before it sees them, so that none can be taken for an option;
// credentials reach it in a file, never in an argument (access.go). Repositories are not trusted.
package git

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/worker/source"
)

// Scheme is the scheme of repositories.
const Scheme = "git"

// Config is what the source works with.
type Config struct {
	Cache    *cache.Manager
	Sessions *session.Manager
	// Dir is a folder of the source alone, for files of running jobs. What is in it when the
	// daemon starts is of no use to anybody.
	Dir string
	// Blobs reads the blobs that hold bundles; nil if there can be none.
	Blobs source.Source
	// Environ is the environment of the daemon, of which git gets proxies and certificates.
	Environ []string
	// Stall is how long a remote may be silent; 0 stands for five minutes.
	Stall time.Duration
}

// Source fetches repositories. It may be used concurrently.
type Source struct {
	cfg   Config
	locks locks
}

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source {
	if cfg.Stall <= 0 {
		cfg.Stall = defaultStall
	}
	return &Source{cfg: cfg}
}

// Schemes returns git.
func (s *Source) Schemes() []string { return []string{Scheme} }

// MTime says which time files get.
type MTime string

// The times of files: of the checkout, or of the commit.
const (
	MTimeCheckout MTime = "checkout"
	MTimeCommit   MTime = "commit"
)

// Identifier is a parsed git:// op.
type Identifier struct {
	Remote *giturl.URL
	// Ref is a branch, tag, full name or commit; empty for what the remote's HEAD is.
	Ref string
	// Subdir is the directory that is wanted, clean and relative; empty for all.
	Subdir string
	// Checksum is how the commit or tag object must begin; empty if any will do.
	Checksum string
	// KeepDir keeps .git. It has no effect on a directory.
	KeepDir        bool
	SkipSubmodules bool
	MTime          MTime
	// FetchByCommit asks the server for nothing but the commit that Ref or Checksum name.
	FetchByCommit bool
	// Bundle yields a bundle of the commit rather than its files.
	Bundle bool

	// From is the blob with a bundle that has the commits instead of the remote; nil for none.
	From source.Identifier

	// AuthHeader and AuthToken are secrets; KnownHosts and Agent are for ssh.
	AuthHeader, AuthToken string
	KnownHosts            string
	Agent                 string

	// Signature is what commit or tag must be signed with; nil if nobody cares.
	Signature *Signature
}

// Scheme returns git.
func (id *Identifier) Scheme() string { return Scheme }

// String returns the remote without credentials, with ref and directory.
func (id *Identifier) String() string {
	s := id.Remote.String()
	if id.Ref != "" || id.Subdir != "" {
		s += "#" + id.Ref
	}
	if id.Subdir != "" {
		s += ":" + id.Subdir
	}
	return s
}

// Material tells of the repository and of what its remote may ask for.
func (id *Identifier) Material(pin string) source.Material {
	m := source.Material{Kind: source.MaterialGit, Name: id.Remote.String(), Digest: pin}
	if id.Ref != "" {
		m.Name += "#" + id.Ref
	}
	for _, secret := range []string{id.AuthToken, id.AuthHeader} {
		if secret != "" {
			m.Secrets = append(m.Secrets, secret)
		}
	}
	if id.Agent != "" {
		m.SSH = []string{id.Agent}
	}
	if from, ok := id.From.(source.Materialer); ok {
		bundle := from.Material("")
		m.Bundle = &bundle
	}
	return m
}

// Parse reads the remote, its fragment and the attributes git.*; others are ignored.
func (s *Source) Parse(_, ref string, attrs map[string]string, platform ocispec.Platform) (source.Identifier, error) {
	id, err := parse(ref, attrs)
	if err != nil {
		return nil, err
	}
	if id.From, err = s.parseBundle(attrs, platform); err != nil {
		return nil, err
	}
	return id, nil
}

var (
	hexPrefix  = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
	fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// IsCommit tells whether a ref is a commit in full.
func IsCommit(ref string) bool { return fullCommit.MatchString(ref) }

func parse(ref string, attrs map[string]string) (*Identifier, error) {
	remote, fragment, _ := strings.Cut(ref, "#")
	id := &Identifier{
		Checksum:   attrs[pb.AttrGitChecksum],
		MTime:      MTime(cmp.Or(attrs[pb.AttrGitMTime], string(MTimeCheckout))),
		AuthHeader: attrs[pb.AttrGitAuthHeaderSecret],
		AuthToken:  attrs[pb.AttrGitAuthTokenSecret],
		KnownHosts: attrs[pb.AttrGitKnownSSHHosts],
		Agent:      attrs[pb.AttrGitMountSSHSock],
	}
	id.Ref, id.Subdir, _ = strings.Cut(fragment, ":")
	if full := attrs[pb.AttrGitFullURL]; full != "" {
		remote = full
	}
	if !giturl.HasScheme(remote) && !giturl.IsShort(remote) {
		remote = "https://" + remote
	}
	var err error
	if id.Remote, err = giturl.Parse(remote); err != nil {
		return nil, err
	}
	if id.Subdir, err = cleanSubdir(id.Subdir); err != nil {
		return nil, err
	}
	for key, flag := range map[string]*bool{
		pb.AttrGitKeepDir:        &id.KeepDir,
		pb.AttrGitSkipSubmodules: &id.SkipSubmodules,
		pb.AttrGitFetchByCommit:  &id.FetchByCommit,
		pb.AttrGitCheckoutBundle: &id.Bundle,
	} {
		if v := attrs[key]; v != "" {
			if *flag, err = strconv.ParseBool(v); err != nil {
				return nil, fmt.Errorf("invalid %s %q", key, v)
			}
		}
	}
	if id.Signature, err = parseSignature(attrs); err != nil {
		return nil, err
	}
	return id, id.check()
}

// check refuses what can't be, or can't be had together.
func (id *Identifier) check() error {
	if id.Ref != "" && !isRef(id.Ref) {
		return fmt.Errorf("invalid git ref %q", id.Ref)
	}
	if c := id.Checksum; c != "" && !hexPrefix.MatchString(c) {
		return fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", c)
	}
	if id.MTime != MTimeCheckout && id.MTime != MTimeCommit {
		return fmt.Errorf("invalid %s %q", pb.AttrGitMTime, id.MTime)
	}
	if id.FetchByCommit && !IsCommit(id.Ref) && !IsCommit(id.Checksum) {
		return fmt.Errorf("fetch-by-commit requires a full commit hash as ref or checksum of %s", id)
	}
	if id.Bundle && (id.KeepDir || id.Subdir != "") {
		return fmt.Errorf("a bundle of %s can't be had with its git directory or of a part of it", id)
	}
	return nil
}

// isRef tells whether a text can be the name of a ref, by the rules of git-check-ref-format.
func isRef(ref string) bool {
	if strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || ref == "@" || len(ref) > maxRef ||
		strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.HasSuffix(ref, ".") ||
		strings.ContainsFunc(ref, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return false
	}
	for part := range strings.SplitSeq(ref, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// maxRef is the longest name of a ref in bytes.
const maxRef = 1024

// cleanSubdir returns a directory as a clean relative path.
func cleanSubdir(dir string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(dir, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", fmt.Errorf("invalid subdir %s: it leads out of the repository", dir)
		default:
			if strings.ContainsRune(part, 0) || strings.EqualFold(part, ".git") {
				return "", fmt.Errorf("invalid subdir %q", dir)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// keepDir tells whether .git is kept.
func (id *Identifier) keepDir() bool { return id.KeepDir && id.Subdir == "" }

// named returns what is known of the ref without asking anybody; nil if nothing is.
func (id *Identifier) named() *resolved {
	switch {
	case IsCommit(id.Ref):
		return &resolved{commit: id.Ref}
	case id.FetchByCommit:
		return &resolved{commit: id.Checksum, ref: id.Ref}
	}
	return nil
}

// Instance prepares a repository for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	r, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no repository", id)
	}
	return &instance{src: s, id: r, env: env}, nil
}
