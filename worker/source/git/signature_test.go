//go:build linux

package git

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source/signature"
)

func TestCommitsAndTagsAreCheckedAgainstTheirSignatures(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	key := func(name string) (file, public string) {
		file = filepath.Join(root, name)
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput()
		require.NoError(t, err, string(out))
		data, err := os.ReadFile(file + ".pub")
		require.NoError(t, err)
		return file, string(data)
	}
	file, public := key("ours")
	_, others := key("theirs")
	r := newRepo(t, root, "r")
	r.git("config", "gpg.format", "ssh")
	r.git("config", "user.signingkey", file)
	r.git("tag", "-s", "-m", "signed", "signed-tag")
	r.git("commit", "-q", "-S", "--allow-empty", "-m", "signed")
	r.git("tag", "-a", "-m", "plain", "plain-tag")
	r.git("tag", "light")
	s := serve(t, root)
	b := newBench(t)
	for name, c := range map[string]struct {
		ref   string
		attrs attrs
		want  string
	}{
		"a signed commit":                       {ref: "main"},
		"by its hash":                           {ref: r.head()},
		"a signed tag of a plain commit":        {ref: "signed-tag", attrs: attrs{pb.AttrGitSigRequireSigned: "true"}},
		"the plain commit of a signed tag":      {ref: "signed-tag", attrs: attrs{pb.AttrGitSigIgnoreSigned: "true"}, want: "it is not signed"},
		"a plain tag of a signed commit":        {ref: "plain-tag"},
		"a plain tag that should be signed":     {ref: "plain-tag", attrs: attrs{pb.AttrGitSigRequireSigned: "true"}, want: "it is not signed"},
		"a tag without an object":               {ref: "light", attrs: attrs{pb.AttrGitSigRequireSigned: "true"}, want: "there is no annotated tag"},
		"a commit by its hash alone":            {ref: r.git("rev-parse", "signed-tag^{}"), want: "it is not signed"},
		"somebody else's commit":                {ref: "main", attrs: attrs{pb.AttrGitSigPubKey: others}, want: "it is signed by none of the keys"},
		"somebody else's tag":                   {ref: "signed-tag", attrs: attrs{pb.AttrGitSigPubKey: others}, want: "it is signed by none of the keys"},
		"one of several keys":                   {ref: "main", attrs: attrs{pb.AttrGitSigPubKey: others + public}},
		"a tag, with the git directory kept":    {ref: "signed-tag", attrs: attrs{pb.AttrGitKeepDir: "true"}},
		"a bundle":                              {ref: "main", attrs: attrs{pb.AttrGitCheckoutBundle: "true"}},
		"a directory of the tree of the commit": {ref: "main:sub"},
	} {
		a := attrs{pb.AttrGitSigPubKey: public}
		for k, v := range c.attrs {
			a[k] = v
		}
		_, err := b.fetch(s.url("r"), c.ref, a)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
		var e *signature.Error
		require.ErrorAs(t, err, &e, name)
	}

	pinned := func(a attrs) string {
		k, _, err := b.instance(s.url("r"), "main", a, nil).Key(t.Context(), 0)
		require.NoError(t, err)
		return k.Value
	}
	require.NotEqual(t, pinned(nil), pinned(attrs{pb.AttrGitSigPubKey: public}), "what was not checked is no answer to who wants it checked")
	require.NotEqual(t, pinned(attrs{pb.AttrGitSigPubKey: public}), pinned(attrs{pb.AttrGitSigPubKey: public, pb.AttrGitSigRejectExpired: "true"}))
}
