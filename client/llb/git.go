package llb

import (
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// GitOption changes how a git repository is read.
type GitOption interface {
	applyGit(*gitInfo)
}

type gitInfo struct {
	sourceInfo
	ref    string
	subdir string
}

type gitOpt func(*gitInfo)

func (o gitOpt) applyGit(g *gitInfo) { o(g) }

// Names of the secrets that hold credentials of git servers unless options say otherwise.
const (
	defaultGitAuthHeader = "GIT_AUTH_HEADER"
	defaultGitAuthToken  = "GIT_AUTH_TOKEN"
)

// Git reads a checkout of a repository. Remote is a URL, the scp form of an ssh remote
// (git@host:path), or a URL without scheme, which means https. What it reads follows from
// GitRef and GitSubdir.
func Git(remote string, opts ...GitOption) State {
	var info gitInfo
	for _, o := range opts {
		o.applyGit(&info)
	}
	if !giturl.HasScheme(remote) && !giturl.IsShort(remote) {
		remote = "https://" + remote
	}
	u, err := giturl.Parse(remote)
	if err != nil {
		return failed(err)
	}
	setDefault := func(key, value string) {
		if _, ok := info.attrs[key]; !ok {
			info.set(key, value, "")
		}
	}
	setDefault(pb.AttrGitAuthHeaderSecret, defaultGitAuthHeader)
	setDefault(pb.AttrGitAuthTokenSecret, defaultGitAuthToken)
	if u.Scheme == giturl.SSH {
		if _, ok := info.attrs[pb.AttrGitMountSSHSock]; !ok {
			info.set(pb.AttrGitMountSSHSock, "default", pb.CapSourceGitMountSSHSock)
		}
	}
	info.set(pb.AttrGitFullURL, remote, pb.CapSourceGitFullURL)
	info.need(pb.CapSourceGit)
	id := u.ID()
	if info.ref != "" || info.subdir != "" {
		id += "#" + info.ref
		if info.subdir != "" {
			id += ":" + info.subdir
		}
	}
	return (&sourceOp{identifier: pb.SchemeGit + id, info: info.sourceInfo}).state()
}

// GitRef reads a branch, tag, full ref name or commit. The default is the remote's HEAD.
func GitRef(ref string) GitOption { return gitOpt(func(g *gitInfo) { g.ref = ref }) }

// GitSubdir reads only a directory of the repository.
func GitSubdir(dir string) GitOption { return gitOpt(func(g *gitInfo) { g.subdir = dir }) }

// KeepGitDir keeps the .git directory.
func KeepGitDir() GitOption { return gitFlag(pb.AttrGitKeepDir, pb.CapSourceGitKeepDir) }

// GitSkipSubmodules leaves submodules out.
func GitSkipSubmodules() GitOption {
	return gitFlag(pb.AttrGitSkipSubmodules, pb.CapSourceGitSkipSubmodules)
}

// GitFetchByCommit fetches the commit itself; the ref or GitChecksum must name it in full.
func GitFetchByCommit() GitOption {
	return gitFlag(pb.AttrGitFetchByCommit, pb.CapSourceGitFetchByCommit)
}

// GitCheckoutBundle yields a bundle of the commit rather than its files.
func GitCheckoutBundle() GitOption {
	return gitFlag(pb.AttrGitCheckoutBundle, pb.CapSourceGitCheckoutBundle)
}

// GitChecksum fails the build unless the commit's hash begins with this hex prefix.
func GitChecksum(prefix string) GitOption {
	return gitAttr(pb.AttrGitChecksum, prefix, pb.CapSourceGitChecksum)
}

// GitBundle reads the repository from a bundle, named as "<scheme>://<ref>@<digest>".
func GitBundle(locator string) GitOption {
	return gitAttr(pb.AttrGitBundle, locator, pb.CapSourceGitBundle)
}

// GitMTime is the time that files get. It is an option of Git.
type GitMTime string

// Times of files: of the checkout or of the commit.
const (
	GitMTimeCheckout GitMTime = "checkout"
	GitMTimeCommit   GitMTime = "commit"
)

func (m GitMTime) applyGit(g *gitInfo) { g.set(pb.AttrGitMTime, string(m), pb.CapSourceGitMTime) }

// AuthTokenSecret names the secret that holds an access token.
func AuthTokenSecret(id string) GitOption {
	return gitAttr(pb.AttrGitAuthTokenSecret, id, pb.CapSourceGitHTTPAuth)
}

// KnownSSHHosts sets the contents of known_hosts.
func KnownSSHHosts(text string) GitOption {
	return gitAttr(pb.AttrGitKnownSSHHosts, text, pb.CapSourceGitKnownSSHHosts)
}

// MountSSHSock names the client's ssh agent that is used.
func MountSSHSock(id string) GitOption {
	return gitAttr(pb.AttrGitMountSSHSock, id, pb.CapSourceGitMountSSHSock)
}

// GitSignature says how the signature of a commit or tag is verified.
type GitSignature struct {
	// PublicKey is an armored key.
	PublicKey         string
	RejectExpiredKeys bool
	RequireSignedTag  bool
	IgnoreSignedTag   bool
}

func (v GitSignature) applyGit(g *gitInfo) {
	g.set(pb.AttrGitSigPubKey, v.PublicKey, pb.CapSourceGitSignatureVerify)
	for key, on := range map[string]bool{
		pb.AttrGitSigRejectExpired: v.RejectExpiredKeys,
		pb.AttrGitSigRequireSigned: v.RequireSignedTag,
		pb.AttrGitSigIgnoreSigned:  v.IgnoreSignedTag,
	} {
		if on {
			g.set(key, "true", pb.CapSourceGitSignatureVerify)
		}
	}
}

func gitAttr(key, value, capID string) GitOption {
	return gitOpt(func(g *gitInfo) { g.set(key, value, capID) })
}

func gitFlag(key, capID string) GitOption { return gitAttr(key, "true", capID) }
