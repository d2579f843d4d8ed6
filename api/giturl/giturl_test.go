package giturl

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestURLs(t *testing.T) {
	for s, want := range map[string]struct{ id, remote, shown string }{
		"https://h.example/o/r.git":            {"h.example/o/r.git", "https://h.example/o/r.git", "https://h.example/o/r.git"},
		"https://tok@h.example/r.git":          {"h.example/r.git", "https://h.example/r.git", "https://xxxxx@h.example/r.git"},
		"http://u:p%40w@h.example:8080/r%20s/": {"h.example:8080/r%20s", "http://h.example:8080/r%20s/", "http://xxxxx@h.example:8080/r%20s/"},
		"ssh://git@h.example:22/o/r.git":       {"h.example:22/o/r.git", "ssh://git@h.example:22/o/r.git", "ssh://git@h.example:22/o/r.git"},
		"ssh://git:secret@h.example/r":         {"h.example/r", "ssh://git@h.example/r", "ssh://git@h.example/r"},
		"git@h.example:o/r.git":                {"h.example/o/r.git", "git@h.example:o/r.git", "git@h.example:o/r.git"},
		"git@[::1]:/o/r.git":                   {"[::1]/o/r.git", "git@[::1]:/o/r.git", "git@[::1]:/o/r.git"},
		"git://h.example/r":                    {"h.example/r", "git://h.example/r", "git://h.example/r"},
		"HTTPS://h.example/r":                  {"h.example/r", "https://h.example/r", "https://h.example/r"},
	} {
		u, err := Parse(s)
		require.NoError(t, err, s)
		require.Equal(t, want.id, u.ID(), s)
		require.Equal(t, want.remote, u.Remote(), s)
		require.Equal(t, want.shown, u.String(), s)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, s := range []string{
		"", "r.git", "./r.git", "/srv/r.git", "file:///srv/r.git", "ext::sh -c id", "ext://sh", "fd::7", "ftp://h/r", "transport::x",
		"https:///r.git", "https://h:port/r", "https://h/r.git#main", "https://h/r.git?x=y", "https://h/r?",
		"--upload-pack=touch /tmp/x", "-c core.sshCommand=x", "git@-oProxyCommand=x:r", "-oProxyCommand=x@h:r", "git@h:-r",
		"ssh://-oProxyCommand=x/r", "ssh://-oProxyCommand=x@h/r", "ssh://-x", "https://-h/r",
		"https://h/r\n[core]", "https://h/r\x00", "git@h:a\tb", "https://user:p%zz@h/",
	} {
		_, err := Parse(s)
		require.Error(t, err, s)
		require.NotContains(t, err.Error(), "p%zz")
	}
}

func TestRedact(t *testing.T) {
	sha := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{
		"fatal: https://u:p@h/r not found":  "fatal: https://xxxxx@h/r not found",
		"a http://t@h/ b https://a@b:c@h/x": "a http://xxxxx@h/ b https://xxxxx@h/x",
		"ssh://git@h/r ssh://git:pw@h/r":    "ssh://git@h/r ssh://git:xxxxx@h/r",
		"git@h:r https://h/a@b":             "git@h:r https://h/a@b",
		"mail a@b":                          "mail a@b",
		"mail a@b, see https://h/":          "mail a@b, see https://h/",

		"docker-image://busybox:1@sha256:" + sha:     "docker-image://busybox:1@sha256:" + sha,
		"oci-layout://x@sha512:" + sha:               "oci-layout://x@sha512:" + sha,
		"docker-image://u:p@busybox@sha256:" + sha:   "docker-image://xxxxx@sha256:" + sha,
		"docker-image://u:p@h/busybox@sha256:" + sha: "docker-image://xxxxx@h/busybox@sha256:" + sha,
	} {
		require.Equal(t, want, Redact(in))
	}
}

// credentials is what Redact finds, as an expression.
var credentials = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*)://([^/\s@"<>]*(?:@[^/\s@"<>]*)*)@`)

func redactedByExpression(text string) string {
	var out strings.Builder
	done := 0
	for _, at := range credentials.FindAllStringSubmatchIndex(text, -1) {
		if shown, ok := redactedLogin(text[at[2]:at[3]], text[at[4]:at[5]], text[at[1]:]); ok {
			out.WriteString(text[done:at[4]] + shown)
			done = at[5]
		}
	}
	return out.String() + text[done:]
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{
		"see https://u:p@h/r", "http://a://b@c", "http://u@ssh://x@h", "1ssh://g:p@h", "-+.://u@h", "\"x://a@\"y://b@c", "://u@h", "ssh://a@b@c",
		"é://u@h", "x://\xff@h", "docker-image://x@sha256:0123456789abcdef0123", "x://a@b\fc@d", "x://y://@z@", "a@b x://c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { require.Equal(t, redactedByExpression(s), Redact(s)) })
}

func BenchmarkRedact(b *testing.B) {
	text := strings.Repeat(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:0123456789abcdef","size":123},`, 10_000) + "https://u:p@h/"
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Redact(text)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://u:p@h/r", "git@h:r", "ssh://git@[::1]:22/~/r", "-o@h:x", "file:///x", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		require.False(t, strings.HasPrefix(u.Remote(), "-"), u.Remote())
		require.False(t, strings.HasPrefix(u.Host, "-"))
		require.NotContains(t, u.Remote(), "\n")
		if u.User != nil {
			if p, ok := u.User.Password(); ok && len(p) > 8 && !strings.Contains(u.ID()+u.User.Username(), p) {
				require.NotContains(t, u.String(), p)
				require.NotContains(t, u.Remote(), p)
			}
		}
		again, err := Parse(u.Remote())
		require.NoError(t, err, u.Remote())
		require.Equal(t, u.ID(), again.ID())
	})
}
