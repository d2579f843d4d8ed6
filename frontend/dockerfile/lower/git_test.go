package lower

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGitURLs(t *testing.T) {
	yes, no := true, false
	const r = "https://h.example/r.git"
	for s, want := range map[string]GitURL{
		r:                          {Remote: r},
		r + "#v1":                  {Remote: r, Ref: "v1"},
		r + "#:sub":                {Remote: r, Subdir: "sub"},
		r + "#v1:a/b":              {Remote: r, Ref: "v1", Subdir: "a/b"},
		r + "?ref=v1":              {Remote: r, Ref: "v1"},
		r + "?ref=v1#v1:s":         {Remote: r, Ref: "v1", Subdir: "s"},
		r + "?branch=b&subdir=s":   {Remote: r, Ref: "refs/heads/b", Subdir: "s"},
		r + "?tag=v1":              {Remote: r, Ref: "refs/tags/v1"},
		r + "?checksum=abc":        {Remote: r, Checksum: "abc"},
		r + "?commit=abc#main":     {Remote: r, Ref: "main", Checksum: "abc"},
		r + "?keep-git-dir":        {Remote: r, KeepDir: &yes},
		r + "?keep-git-dir=0":      {Remote: r, KeepDir: &no},
		r + "?submodules=false":    {Remote: r, Submodules: &no},
		r + "?mtime=commit":        {Remote: r, MTime: "commit"},
		r + "?fetch-by-commit=1":   {Remote: r, FetchByCommit: true},
		"git@h.example:r.git#v1:s": {Remote: "git@h.example:r.git", Ref: "v1", Subdir: "s"},
	} {
		require.True(t, IsGitURL(s), s)
		got, err := ParseGitURL(s)
		require.NoError(t, err, s)
		require.Equal(t, want, *got, s)
	}
	for query, want := range map[string]string{
		"colour=red":           `unexpected query "colour"`,
		"ref=":                 `query "ref" has no value`,
		"ref=a&ref=b":          `query "ref" has multiple values`,
		"ref=a#b":              "ref conflicts: b vs a",
		"branch=a&ref=a":       "ref conflicts: refs/heads/a vs a",
		"branch=a&tag=a":       "branch conflicts with tag",
		"submodules=perhaps":   `invalid submodules value: "perhaps"`,
		"keep-git-dir=perhaps": `invalid keep-git-dir value: "perhaps"`,
		"commit=a&checksum=b":  "checksum conflicts: b vs a",
		"subdir=a#main:b":      "subdir conflicts: b vs a",
		"ref=%zz":              `invalid query of git url https://xxxxx@h/r.git: invalid URL escape "%zz"`,
	} {
		_, err := ParseGitURL("https://user:pass@h/r.git?" + query)
		require.EqualError(t, err, want, query)
	}
}

func FuzzParseGitURL(f *testing.F) {
	f.Add("https://u:p@h/r.git?ref=a&keep-git-dir#a:b")
	f.Add("git@h:r?x;y#:..")
	f.Fuzz(func(_ *testing.T, s string) {
		if g, err := ParseGitURL(s); err == nil {
			_ = g.State()
		}
	})
}
