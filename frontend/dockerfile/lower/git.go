package lower

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/client/llb"
)

var (
	gitHTTP = regexp.MustCompile(`^https?://[^#?]*\.git/?([#?].*)?$`)
	gitSCP  = regexp.MustCompile(`^[a-zA-Z0-9_.-]+@[a-zA-Z0-9.-]+:[^/]`)
)

// IsGitURL tells whether a source names a repository.
func IsGitURL(s string) bool {
	return strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "ssh://") || gitHTTP.MatchString(s) || gitSCP.MatchString(s)
}

// GitURL is the url of a repository with what it says of the checkout.
type GitURL struct {
	Remote      string
	Ref, Subdir string
	Checksum    string
	// KeepDir and Submodules are nil if the url does not say.
	KeepDir, Submodules *bool
	MTime               string
	FetchByCommit       bool
}

// ParseGitURL reads a url whose fragment is "ref[:directory]" and whose query has what the
// fragment can't say. Errors show no credentials.
func ParseGitURL(s string) (*GitURL, error) {
	before, fragment, _ := strings.Cut(s, "#")
	remote, query, _ := strings.Cut(before, "?")
	g := &GitURL{Remote: remote}
	g.Ref, g.Subdir, _ = strings.Cut(fragment, ":")
	if query == "" {
		return g, nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("invalid query of git url %s: %w", giturl.Redact(remote), err)
	}
	return g, g.query(values)
}

// query takes the values of the query.
func (g *GitURL) query(values url.Values) error {
	var branch, tag bool
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if len(values[key]) > 1 {
			return fmt.Errorf("query %q has multiple values", key)
		}
		v := values[key][0]
		var err error
		switch key {
		case "keep-git-dir":
			g.KeepDir, err = queryFlag(key, v)
		case "submodules":
			g.Submodules, err = queryFlag(key, v)
		case "fetch-by-commit":
			var flag *bool
			if flag, err = queryFlag(key, v); err == nil {
				g.FetchByCommit = *flag
			}
		case "ref", "branch", "tag", "subdir", "checksum", "commit", "mtime":
			if v == "" {
				return fmt.Errorf("query %q has no value", key)
			}
			branch, tag = branch || key == "branch", tag || key == "tag"
			if branch && tag {
				return errors.New("branch conflicts with tag")
			}
			err = g.value(key, v)
		default:
			return fmt.Errorf("unexpected query %q", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func queryFlag(key, v string) (*bool, error) {
	flag := true
	if v != "" {
		var err error
		if flag, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("invalid %s value: %q", key, v)
		}
	}
	return &flag, nil
}

func (g *GitURL) value(key, v string) error {
	switch key {
	case "ref":
		return agree("ref", &g.Ref, v)
	case "branch":
		return agree("ref", &g.Ref, "refs/heads/"+v)
	case "tag":
		return agree("ref", &g.Ref, "refs/tags/"+v)
	case "subdir":
		return agree("subdir", &g.Subdir, v)
	case "mtime":
		g.MTime = v
		return nil
	}
	return agree("checksum", &g.Checksum, v)
}

// agree sets a value that may have been set before, to the same.
func agree(what string, have *string, v string) error {
	if *have != "" && *have != v {
		return fmt.Errorf("%s conflicts: %s vs %s", what, *have, v)
	}
	*have = v
	return nil
}

// State returns the checkout.
func (g *GitURL) State(opts ...llb.GitOption) llb.State {
	if g.Ref != "" {
		opts = append(opts, llb.GitRef(g.Ref))
	}
	if g.Subdir != "" {
		opts = append(opts, llb.GitSubdir(g.Subdir))
	}
	if g.Checksum != "" {
		opts = append(opts, llb.GitChecksum(g.Checksum))
	}
	if g.KeepDir != nil && *g.KeepDir {
		opts = append(opts, llb.KeepGitDir())
	}
	if g.Submodules != nil && !*g.Submodules {
		opts = append(opts, llb.GitSkipSubmodules())
	}
	if g.MTime != "" {
		opts = append(opts, llb.GitMTime(g.MTime))
	}
	if g.FetchByCommit {
		opts = append(opts, llb.GitFetchByCommit())
	}
	return llb.Git(g.Remote, opts...)
}

// gitSource is the repository of an ADD, with the flags of the instruction.
func gitSource(o remoteOptions, src, name string, at llb.ConstraintsOpt) (*remoteSource, error) {
	g, err := ParseGitURL(src)
	if err != nil {
		return nil, err
	}
	if o.keepGitDir != nil {
		if g.KeepDir != nil && *g.KeepDir != *o.keepGitDir {
			return nil, errors.New("inconsistent keep-git-dir configuration")
		}
		g.KeepDir = o.keepGitDir
	}
	if o.checksum != "" {
		if g.Checksum != "" && g.Checksum != o.checksum {
			return nil, fmt.Errorf("checksum mismatch %q != %q", o.checksum, g.Checksum)
		}
		g.Checksum = o.checksum
	}
	return &remoteSource{tree: g.State(llb.CustomName(name), at), path: "/"}, nil
}
