//go:build linux

package http

import (
	nethttp "net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

func TestAFileIsFetchedOverTLS(t *testing.T) {
	w := newWeb(t, serve("hello", ""))
	b := newBench(t, w)
	g, err := b.get(w.URL+"/dir/a%20b.txt?x=1#part", nil)
	require.NoError(t, err)
	require.Equal(t, "a b.txt", g.name)
	require.Equal(t, "hello", g.content)
	require.Equal(t, os.FileMode(0o600), g.mode)
	require.Equal(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), g.time)
	require.Equal(t, digest.FromString("hello").String(), g.key.Pin)
}

func TestTheOpSaysHowTheFileIsPutDown(t *testing.T) {
	w := newWeb(t, serve("x", ""))
	b := newBench(t, w)
	g, err := b.get(w.URL+"/a", map[string]string{
		pb.AttrHTTPFilename: "f", pb.AttrHTTPPerm: "04751", pb.AttrHTTPUID: "7", pb.AttrHTTPGID: "8",
	})
	require.NoError(t, err)
	require.Equal(t, "f", g.name)
	require.Equal(t, os.ModeSetuid|0o751, g.mode)
	require.Equal(t, uint32(7), g.uid)
}

func TestNamesOfFiles(t *testing.T) {
	for disposition, want := range map[string]string{
		"":                                                 "url",
		`attachment; filename="given.tgz"`:                 "given.tgz",
		`attachment; filename="../../up.tgz"`:              "up.tgz",
		`attachment; filename=".."`:                        "url",
		`attachment; filename*=UTF-8''n%C3%A4me`:           "näme",
		`attachment; filename*=UTF-8''a%2Fb%00c`:           "url",
		`attachment; filename=` + strings.Repeat("n", 300): "url",
	} {
		w := newWeb(t, func(rw nethttp.ResponseWriter, r *nethttp.Request) {
			rw.Header().Set("Content-Disposition", disposition)
			serve("x", "")(rw, r)
		})
		g, err := newBench(t, w).get(w.URL+"/some/url", nil)
		require.NoError(t, err, disposition)
		require.Equal(t, want, g.name, disposition)
	}
	for path, want := range map[string]string{"": "download", "/": "download", "/d/": "d", "/d/..": "download", "/%00": "download"} {
		id, err := parse("http://h"+path, nil)
		require.NoError(t, err)
		require.Equal(t, want, id.name(""), path)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		url   string
		attrs map[string]string
	}{
		"no host":                {"http:///x", nil},
		"no url":                 {"http://h:port/x", nil},
		"a bad escape":           {"https://user:p%zz@h/", nil},
		"a name with a folder":   {"http://h/", map[string]string{pb.AttrHTTPFilename: "a/b"}},
		"a name of the parent":   {"http://h/", map[string]string{pb.AttrHTTPFilename: ".."}},
		"no checksum":            {"http://h/", map[string]string{pb.AttrHTTPChecksum: "abc"}},
		"no mode":                {"http://h/", map[string]string{pb.AttrHTTPPerm: "rwx"}},
		"a mode of other bits":   {"http://h/", map[string]string{pb.AttrHTTPPerm: "0100644"}},
		"no user":                {"http://h/", map[string]string{pb.AttrHTTPUID: "root"}},
		"a user that is none":    {"http://h/", map[string]string{pb.AttrHTTPUID: "4294967295"}},
		"a negative group":       {"http://h/", map[string]string{pb.AttrHTTPGID: "-1"}},
		"a signature":            {"http://h/", map[string]string{pb.AttrHTTPSigPubKey: "k"}},
		"a signature of nothing": {"http://h/", map[string]string{pb.AttrHTTPSigSignature: "s"}},
	} {
		_, err := parse(c.url, c.attrs)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "p%zz", name)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("http://user:pass@host:80/a/b?q#f", "name", "0644", "1")
	f.Add("https://[::1]/%2e%2e/%00", "", "", "")
	f.Add("http://buildkit-session/abc", "..", "-1", "4294967295")
	f.Fuzz(func(t *testing.T, u, name, perm, uid string) {
		id, err := parse(u, map[string]string{pb.AttrHTTPFilename: name, pb.AttrHTTPPerm: perm, pb.AttrHTTPUID: uid})
		if err != nil {
			return
		}
		for _, d := range []string{"", name, u} {
			require.True(t, tree.IsFileName(id.name(d)))
		}
		shown, err := url.Parse(id.String())
		if err == nil && shown.User != nil {
			require.Equal(t, "xxxxx", shown.User.String())
		}
	})
}

func FuzzDisposition(f *testing.F) {
	for _, s := range []string{"", "inline", `attachment; filename="a"`, "a; filename*=UTF-8''%e2%82", "a; filename*0=x; filename*1=y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		id := &Identifier{URL: &url.URL{Path: "/"}}
		require.True(t, tree.IsFileName(id.name(dispositionName(header))))
	})
}
