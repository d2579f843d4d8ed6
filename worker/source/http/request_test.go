//go:build linux

package http

import (
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestHeaders(t *testing.T) {
	w := newWeb(t, plain("x"))
	b := newBench(t, w)
	_, err := b.get(w.URL+"/f", map[string]string{
		pb.AttrHTTPHeaderPrefix + "accept": "text/x", pb.AttrHTTPHeaderPrefix + "user-agent": "me",
		pb.AttrHTTPHeaderPrefix + "x-other": "dropped",
	})
	require.NoError(t, err)
	require.Equal(t, "text/x", w.asked[0].Get("Accept"))
	require.Equal(t, "me", w.asked[0].Get("User-Agent"))
	require.Empty(t, w.asked[0].Get("X-Other"))
	_, err = b.get(w.URL+"/g", map[string]string{pb.AttrHTTPHeaderPrefix + "user-agent": "a\r\nX-Other: b"})
	require.Error(t, err)
}

// A checksum is no secret: who has it and not the credentials gets nothing that was fetched with
// them.
func TestWhatCredentialsOpenedIsForThoseWhoHaveThem(t *testing.T) {
	w := newWeb(t, func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			rw.WriteHeader(nethttp.StatusUnauthorized)
			return
		}
		serve("private", `"t"`)(rw, r)
	})
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	b := newBench(t, w, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "right"}))
	mine, nobody := b.session, sessiontest.Join(t, b.src.cfg.Sessions, nil).ID()
	liar := sessiontest.Join(t, b.src.cfg.Sessions, nil, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "wrong"})).ID()
	sum := map[string]string{pb.AttrHTTPChecksum: digest.FromString("private").String()}
	first, err := b.get(w.URL+"/f", sum)
	require.NoError(t, err)
	again, err := b.get(w.URL+"/f", sum)
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: digest.FromString("other").String()})
	require.ErrorContains(t, err, "digest mismatch")

	for _, session := range []string{nobody, liar} {
		b.session = session
		for _, attrs := range []map[string]string{nil, sum} {
			i := b.instance(w.URL+"/f", attrs, nil)
			key, _, err := i.Key(t.Context(), 0)
			if err == nil {
				require.NotEqual(t, first.key.Value, key.Value)
				_, err = i.Fetch(t.Context())
			}
			require.EqualError(t, err, "invalid response status 401")
		}
	}
	b.session = mine
	_, err = b.get(w.URL+"/f", sum)
	require.NoError(t, err)

	// Nor does it open what is public at another url.
	public := newWeb(t, plain("public"))
	b = newBench(t, public)
	sum = map[string]string{pb.AttrHTTPChecksum: digest.FromString("public").String()}
	there, err := b.get(public.URL+"/f", sum)
	require.NoError(t, err)
	elsewhere, _, err := b.instance(public.URL+"/other/f", sum, nil).Key(t.Context(), 0)
	require.NoError(t, err)
	require.NotEqual(t, there.key.Value, elsewhere.Value)
}

func TestCredentials(t *testing.T) {
	w := newWeb(t, plain("x"))
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	for name, c := range map[string]struct {
		secrets memory
		attr    string
		want    string
	}{
		"none":               {nil, "", ""},
		"named by the op":    {memory{"mine": "Basic abc", "HTTP_AUTH_TOKEN_" + host: "t"}, "mine", "Basic abc"},
		"of the host":        {memory{"HTTP_AUTH_HEADER_" + host: "Basic h"}, "", "Basic h"},
		"a token wins":       {memory{"HTTP_AUTH_HEADER_" + host: "Basic h", "HTTP_AUTH_TOKEN_" + host: "t"}, "", "Bearer t"},
		"of some other host": {memory{"HTTP_AUTH_TOKEN_other": "t"}, "", ""},
	} {
		b := newBench(t, w, secrets.NewProvider(c.secrets))
		attrs := map[string]string{}
		if c.attr != "" {
			attrs[pb.AttrHTTPAuthHeaderSecret] = c.attr
		}
		w.take()
		_, err := b.get(w.URL+"/f", attrs)
		require.NoError(t, err, name)
		require.Equal(t, c.want, w.asked[0].Get("Authorization"), name)
	}
	_, err := newBench(t, w).get(w.URL+"/f", map[string]string{pb.AttrHTTPAuthHeaderSecret: "absent"})
	require.ErrorContains(t, err, "failed to retrieve HTTP auth secret absent")
}

func TestRedirects(t *testing.T) {
	target := newWeb(t, plain("x"))
	w := newWeb(t, nil)
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	to := func(u string) nethttp.HandlerFunc {
		return func(rw nethttp.ResponseWriter, r *nethttp.Request) { nethttp.Redirect(rw, r, u, nethttp.StatusFound) }
	}
	// Both servers are known to the client: httptest uses one certificate for all.
	b := newBench(t, w, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "t"}))

	w.set(to(target.URL + "/elsewhere"))
	u := strings.Replace(w.URL, "https://", "https://user:pass@", 1)
	g, err := b.get(u+"/start?token=secret", nil)
	require.NoError(t, err)
	require.Equal(t, "start", g.name, "the name is that of the url")
	require.Equal(t, "Bearer t", w.asked[0].Get("Authorization"))
	require.Empty(t, target.asked[0].Get("Authorization"), "credentials stay with their host")
	require.Empty(t, target.asked[0].Get("Referer"))

	w.set(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/second" {
			plain("y")(rw, r)
			return
		}
		to("/second")(rw, r)
	})
	w.take()
	_, err = b.get(w.URL+"/first", nil)
	require.NoError(t, err)
	require.Equal(t, "Bearer t", w.asked[1].Get("Authorization"), "the host is the same")

	for _, loc := range []string{"/round", "file:///etc/passwd", "http://buildkit-session/abc", "gopher://x/"} {
		w.set(to(loc))
		_, err = b.get(w.URL+"/round", nil)
		require.Error(t, err, loc)
	}
}
