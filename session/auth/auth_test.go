package auth_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openbuildkit/buildkit/api/event"
	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/auth"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// logins are those in memory.
type logins map[string]types.AuthConfig

func (l logins) GetAuthConfig(registry string) (types.AuthConfig, error) { return l[registry], nil }

var stored = logins{
	"https://index.docker.io/v1/": {Username: "docker", Password: "secret"},
	"identity.example":            {Username: "ignored", IdentityToken: "idtoken"},
	"static.example":              {RegistryToken: "static"},
	"user.example":                {Username: "user", Password: "pass"},
}

func TestCredentials(t *testing.T) {
	m, c := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: stored}))
	client := authpb.NewAuthClient(c.Conn())
	for host, want := range map[string]auth.Login{
		"registry-1.docker.io": {Username: "docker", Secret: "secret"},
		"identity.example":     {Secret: "idtoken"},
		"other.example":        {},
	} {
		got, err := auth.Credentials(t.Context(), client, host)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	without := sessiontest.Join(t, m, nil)
	got, err := auth.Credentials(t.Context(), authpb.NewAuthClient(without.Conn()), "user.example")
	require.NoError(t, err)
	require.Zero(t, got)
}

func TestDockerConfigurationIsRead(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"user.example":{"auth":"dTpw"}}}`), 0o600))
	file, err := config.Load(dir)
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: file, SeedDir: dir}))
	got, err := auth.Credentials(t.Context(), authpb.NewAuthClient(c.Conn()), "user.example")
	require.NoError(t, err)
	require.Equal(t, auth.Login{Username: "u", Secret: "p"}, got)
}

// Helpers are programs that Docker's configuration names for a registry or for all.
func TestCredentialHelpersAreAsked(t *testing.T) {
	dir := t.TempDir()
	helper := `#!/bin/sh
read host
[ "$1" = get ] || exit 1
case $host in
one.example) echo '{"ServerURL":"one.example","Username":"u","Secret":"p"}' ;;
token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"idtoken"}' ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, text := range map[string]string{
		"for one registry": `{"credHelpers":{"one.example":"test","token.example":"test","none.example":"test"}}`,
		"for all":          `{"credsStore":"test"}`,
	} {
		t.Run(name, func(t *testing.T) {
			configured := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(configured, "config.json"), []byte(text), 0o600))
			file, err := config.Load(configured)
			require.NoError(t, err)
			_, c := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: file, SeedDir: configured}))
			for host, want := range map[string]auth.Login{
				"one.example":   {Username: "u", Secret: "p"},
				"token.example": {Secret: "idtoken"},
				"none.example":  {},
			} {
				got, err := auth.Credentials(t.Context(), authpb.NewAuthClient(c.Conn()), host)
				require.NoError(t, err, host)
				require.Equal(t, want, got, host)
			}
		})
	}
}

func TestCredentialsAreAskedForAgainBeforeFiveMinutesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := logins{"h": {Username: "u", Password: "1"}}
		p := auth.NewProvider(auth.Config{Logins: l})
		get := func() string {
			resp, err := p.Credentials(t.Context(), &authpb.CredentialsRequest{Host: "h"})
			require.NoError(t, err)
			return resp.Secret
		}
		require.Equal(t, "1", get())
		l["h"] = types.AuthConfig{Username: "u", Password: "2"}
		time.Sleep(4 * time.Minute) //nolint:forbidigo // moves the clock of the bubble
		require.Equal(t, "1", get())
		time.Sleep(time.Minute) //nolint:forbidigo // moves the clock of the bubble
		require.Equal(t, "2", get())
	})
}

// tokenServer answers with a token that tells how it was asked for.
func tokenServer(t *testing.T, post int) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			if post != http.StatusOK {
				w.WriteHeader(post)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "post " + r.Form.Get("grant_type") + " " + r.Form.Get("client_id"), "expires_in": 300})
			return
		}
		user, _, _ := r.BasicAuth()
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "get " + user, "issued_at": time.Unix(1_600_000_000, 0).UTC()})
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestTokens(t *testing.T) {
	for name, tc := range map[string]struct {
		host    string
		post    int
		want    string
		expires int64
		issued  int64
		err     string
	}{
		"anonymous":                   {"other.example", 200, "get ", 60, 1_600_000_000, ""},
		"with a password":             {"user.example", 200, "post password id", 300, 0, ""},
		"with an identity token":      {"identity.example", 200, "post refresh_token id", 300, 0, ""},
		"stored as it is":             {"static.example", 500, "static", 60, 0, ""},
		"POST is not allowed":         {"user.example", 405, "get user", 60, 1_600_000_000, ""},
		"POST is not known":           {"user.example", 404, "get user", 60, 1_600_000_000, ""},
		"POST is not authorized":      {"user.example", 401, "get user", 60, 1_600_000_000, ""},
		"the server is broken":        {"user.example", 500, "", 0, 0, "failed to fetch oauth token: "},
		"an identity token is no GET": {"identity.example", 404, "", 0, 0, "failed to fetch oauth token: "},
	} {
		t.Run(name, func(t *testing.T) {
			srv := tokenServer(t, tc.post)
			_, c := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: stored}))
			resp, err := auth.FetchToken(t.Context(), authpb.NewAuthClient(c.Conn()), &authpb.FetchTokenRequest{
				ClientID: "id", Host: tc.host, Realm: srv.URL, Service: "svc", Scopes: []string{"repository:a:pull"},
			})
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, resp.Token)
			require.Equal(t, tc.expires, resp.ExpiresIn)
			if tc.issued != 0 {
				require.Equal(t, tc.issued, resp.IssuedAt)
			}
		})
	}
}

func TestTLSIsPerHost(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"t"}`)) }))
	defer srv.Close()
	_, c := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: stored, TLS: map[string]auth.TLSConfig{
		"insecure.example": {Insecure: true}, "broken.example": {RootCAs: []string{"/does/not/exist"}},
	}}))
	fetch := func(host string) error {
		_, err := auth.FetchToken(t.Context(), authpb.NewAuthClient(c.Conn()), &authpb.FetchTokenRequest{Host: host, Realm: srv.URL})
		return err
	}
	require.NoError(t, fetch("insecure.example"))
	require.ErrorContains(t, fetch("other.example"), "failed to fetch anonymous token")
	require.ErrorContains(t, fetch("broken.example"), "TLS configuration for broken.example")
}

func TestTokenAuthority(t *testing.T) {
	dir := t.TempDir()
	salt := auth.Nonce()
	m, a := sessiontest.Connect(t, auth.NewProvider(auth.Config{Logins: stored, SeedDir: dir}))
	b := sessiontest.Join(t, m, nil, auth.NewProvider(auth.Config{Logins: stored, SeedDir: dir}))
	other := sessiontest.Join(t, m, nil, auth.NewProvider(auth.Config{Logins: stored}))
	key := func(c *session.Caller, host string, salt []byte) *auth.PublicKey {
		k, err := auth.TokenAuthority(t.Context(), authpb.NewAuthClient(c.Conn()), host, salt)
		require.NoError(t, err)
		return k
	}
	verify := func(c *session.Caller, k *auth.PublicKey) bool {
		ok, err := auth.VerifyTokenAuthority(t.Context(), authpb.NewAuthClient(c.Conn()), "user.example", k, salt)
		require.NoError(t, err)
		return ok
	}
	k := key(a, "user.example", salt)
	require.Equal(t, k, key(b, "user.example", salt), "clients with the same seeds have the same authority")
	require.True(t, verify(a, k))
	require.True(t, verify(b, k))
	require.False(t, verify(other, k))
	require.NotEqual(t, k, key(other, "user.example", salt))
	require.NotEqual(t, k, key(a, "user.example", append([]byte{1}, salt...)))
	require.NotEqual(t, k, key(a, "identity.example", salt))
	require.Equal(t, key(a, "other.example", salt), key(other, "other.example", salt), "without a secret all are the same")

	info, err := os.Stat(filepath.Join(dir, ".token_seed"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	t.Setenv("BUILDKIT_NO_CLIENT_TOKEN", "1")
	none, err := auth.TokenAuthority(t.Context(), authpb.NewAuthClient(a.Conn()), "user.example", salt)
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestTokensAndSharedCredentialsAreShown(t *testing.T) {
	srv := tokenServer(t, 200)
	var mu sync.Mutex
	var names []string
	sink := event.SinkFunc(func(b event.Batch) {
		mu.Lock()
		defer mu.Unlock()
		for _, v := range b.Vertices {
			if v.Completed != nil {
				names = append(names, v.Name)
			}
		}
	})
	p := auth.NewProvider(auth.Config{Logins: stored, Progress: sink})
	_, err := p.FetchToken(t.Context(), &authpb.FetchTokenRequest{Host: "user.example", Realm: srv.URL, Scopes: []string{"repository:library/alpine:pull"}})
	require.NoError(t, err)
	for range 2 {
		_, err = p.Credentials(t.Context(), &authpb.CredentialsRequest{Host: "user.example"})
		require.NoError(t, err)
	}
	require.Equal(t, "[auth] library/alpine:pull token for user.example|[auth] sharing credentials for user.example", strings.Join(names, "|"))
}

func FuzzSeedFile(f *testing.F) {
	f.Add([]byte(`{"h":{"Seed":"AAAA"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".token_seed"), data, 0o600))
		p := auth.NewProvider(auth.Config{Logins: logins{"h": {Username: "u", Password: "p"}}, SeedDir: dir})
		_, err := p.GetTokenAuthority(t.Context(), &authpb.GetTokenAuthorityRequest{Host: "h"})
		require.NoError(t, err)
	})
}
