package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
)

const doc = `{"schemaVersion":2}`

// tokenRegistry is a registry with a token server. It lets ann in, and everybody to public/.
type tokenRegistry struct {
	addr string

	mu sync.Mutex
	// tokens maps tokens to who got them for which scopes; issued counts them by user.
	tokens  map[string]string
	issued  map[string]int
	expired map[string]bool
	// elsewhere is where it sends clients for a token, if set.
	elsewhere string
	// getOnly is a token server that knows no POST.
	getOnly bool
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	t.Helper()
	r := &tokenRegistry{tokens: map[string]string{}, issued: map[string]int{}, expired: map[string]bool{}}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.addr = strings.TrimPrefix(s.URL, "http://")
	return r
}

func (r *tokenRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	repo, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
	who, ok := r.tokens[token]
	if !ok || r.expired[token] || (who != "ann" && !strings.HasPrefix(repo, "public/")) {
		realm := "http://" + r.addr + "/token"
		if r.elsewhere != "" {
			realm = r.elsewhere
		}
		challenge := fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:%s:pull"`, realm, repo)
		if token != "" {
			challenge += `,error="insufficient_scope"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Docker-Content-Digest", string(descOf(doc).Digest))
	w.Header().Set("Content-Type", descOf(doc).MediaType)
	_, _ = io.WriteString(w, doc)
}

// token issues one to ann with her password, her identity token, or to nobody.
func (r *tokenRegistry) token(w http.ResponseWriter, req *http.Request) {
	who := ""
	if user, password, ok := req.BasicAuth(); ok {
		if user != "ann" || password != "pw" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		who = user
	}
	if req.Method == http.MethodPost {
		switch {
		case r.getOnly:
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		case req.FormValue("grant_type") == "refresh_token" && req.FormValue("refresh_token") == "identity",
			req.FormValue("grant_type") == "password" && req.FormValue("username") == "ann" && req.FormValue("password") == "pw":
			who = "ann"
		default:
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	kind := "token"
	if req.Method == http.MethodPost {
		kind = "access_token"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{kind: r.issue(who), "expires_in": 300})
}

func (r *tokenRegistry) issue(who string) string {
	r.issued[who]++
	token := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s-%d", who, r.issued[who]))
	r.tokens[token] = who
	return token
}

func (r *tokenRegistry) expireAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for token := range r.tokens {
		r.expired[token] = true
	}
}

func (r *tokenRegistry) resolve(t *testing.T, c *registry.Client, repo string, ids ...string) error {
	t.Helper()
	_, err := c.Repository(parse(t, r.addr+"/"+repo+":1"), session.IDs(ids)).Resolve(t.Context())
	return err
}

func TestTokens(t *testing.T) {
	r := newTokenRegistry(t)
	client := &fakeAuth{token: func(req *authpb.FetchTokenRequest) (*authpb.FetchTokenResponse, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.Equal(req.GetScopes(), []string{"repository:private/x:pull"}) || req.GetService() != "test" {
			return nil, fmt.Errorf("unexpected %v", req)
		}
		return &authpb.FetchTokenResponse{Token: r.issue("ann"), ExpiresIn: 300}, nil
	}}
	sessions := fakeSessions{
		"password": {user: "ann", secret: "pw"},
		"wrong":    {user: "ann", secret: "hidden-word"},
		"identity": {secret: "identity"},
		"client":   client,
		"forger":   {token: client.token, forge: true},
		"nothing":  {},
	}
	fresh := func() *registry.Client { return registry.New(registry.Config{Sessions: sessions}) }

	for _, id := range []string{"password", "identity", "client"} {
		t.Run("are had with a session that knows: "+id, func(t *testing.T) {
			require.NoError(t, r.resolve(t, fresh(), "private/x", id))
		})
	}
	t.Run("are had with a password of a server that knows only GET", func(t *testing.T) {
		r := newTokenRegistry(t)
		r.getOnly = true
		require.NoError(t, r.resolve(t, fresh(), "private/x", "password"))
	})
	t.Run("anonymous ones do for what is public", func(t *testing.T) {
		require.NoError(t, r.resolve(t, fresh(), "public/x"))
		require.NoError(t, r.resolve(t, fresh(), "public/x", "nothing", "gone"))
	})
	t.Run("are refused without credentials", func(t *testing.T) {
		err := r.resolve(t, fresh(), "private/x", "nothing")
		require.ErrorContains(t, err, "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope")
		require.True(t, registry.IsDenied(err))
	})
	t.Run("are refused for wrong ones, which the error does not tell", func(t *testing.T) {
		err := r.resolve(t, fresh(), "private/x", "wrong")
		require.ErrorContains(t, err, "401 Unauthorized")
		require.NotContains(t, err.Error(), "hidden-word")
		require.True(t, registry.IsDenied(err))
	})
	t.Run("of a client that cannot sign are not taken", func(t *testing.T) {
		require.ErrorContains(t, r.resolve(t, fresh(), "private/x", "forger"), "wrong signature")
	})
	t.Run("of one session never serve another", func(t *testing.T) {
		c := fresh()
		require.NoError(t, r.resolve(t, c, "private/x", "password"))
		require.Error(t, r.resolve(t, c, "private/x", "nothing"))
		require.Error(t, r.resolve(t, c, "private/x"))
	})
	t.Run("are shared by the requests of a session", func(t *testing.T) {
		c, before := fresh(), r.issued["ann"]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := r.resolve(t, c, "private/x", "password"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, before+1, r.issued["ann"])
	})
	t.Run("that expired are replaced", func(t *testing.T) {
		c := fresh()
		require.NoError(t, r.resolve(t, c, "private/x", "password"))
		r.expireAll()
		require.NoError(t, r.resolve(t, c, "private/x", "password"))
	})
}

func TestCredentialsStayWhereTheyBelong(t *testing.T) {
	stolen := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		stolen <- req.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(thief.Close)
	sessions := fakeSessions{"s": {user: "ann", secret: "pw"}}

	t.Run("after a redirect to another host", func(t *testing.T) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, _, ok := req.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			// By name, so that it is not the same host for anybody.
			http.Redirect(w, req, strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)+"/v2/x", http.StatusFound)
		}))
		t.Cleanup(s.Close)
		c := registry.New(registry.Config{Sessions: sessions})
		_, err := c.Repository(parse(t, strings.TrimPrefix(s.URL, "http://")+"/x/y:1"), session.IDs{"s"}).Resolve(t.Context())
		require.Error(t, err)
		require.Empty(t, <-stolen)
	})
	t.Run("with an unencrypted authorization server of an encrypted registry", func(t *testing.T) {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, thief.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(s.Close)
		addr := strings.TrimPrefix(s.URL, "https://")
		ca := t.TempDir() + "/ca.pem"
		writeCA(t, ca, s.Certificate())
		c := registry.New(registry.Config{
			Sessions: sessions,
			Hosts:    map[string]registry.HostConfig{addr: {CAs: []string{ca}, PlainHTTP: new(false)}},
		})
		_, err := c.Repository(parse(t, addr+"/x/y:1"), session.IDs{"s"}).Resolve(t.Context())
		require.ErrorContains(t, err, "unencrypted authorization server")
		require.Empty(t, stolen)
	})
}

// encrypted makes a registry or token server that is encrypted, and returns its address and CA.
func encrypted(t *testing.T, handler http.HandlerFunc) (addr, ca string) {
	t.Helper()
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	ca = t.TempDir() + "/ca.pem"
	writeCA(t, ca, s.Certificate())
	return strings.TrimPrefix(s.URL, "https://"), ca
}

func TestSecretsGoNowhereElse(t *testing.T) {
	// elsewhere is another port of the same machine: for net/http the same place.
	var mu sync.Mutex
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		leaked = append(leaked, req.Header.Get("Authorization")+string(body))
		mu.Unlock()
		if req.Method == http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(elsewhere.Close)
	taken := func() []string {
		mu.Lock()
		defer mu.Unlock()
		l := leaked
		leaked = nil
		return l
	}
	basic := func(then http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			if _, _, ok := req.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			then(w, req)
		}
	}
	sessions := fakeSessions{
		"s": {user: "ann", secret: "hidden-word"},
		"client": {token: func(*authpb.FetchTokenRequest) (*authpb.FetchTokenResponse, error) {
			return nil, fmt.Errorf("was asked")
		}},
	}
	client := func(addr, ca string) *registry.Client {
		return registry.New(registry.Config{Sessions: sessions, Hosts: map[string]registry.HostConfig{
			addr: {CAs: []string{ca}, PlainHTTP: new(false)},
		}})
	}
	plain := func(t *testing.T, h http.HandlerFunc) *registry.Repository {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return registry.New(registry.Config{Sessions: sessions}).Repository(parse(t, strings.TrimPrefix(s.URL, "http://")+"/x/y:1"), session.IDs{"s"})
	}

	t.Run("on a redirect to another port", func(t *testing.T) {
		repo := plain(t, basic(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere.URL+"/v2/", http.StatusTemporaryRedirect)
		}))
		_, err := repo.Fetch(t.Context(), descOf(doc), limit)
		require.Error(t, err)
		require.Equal(t, []string{""}, slices.Compact(taken()))
	})
	t.Run("on an upload that goes on elsewhere", func(t *testing.T) {
		cs := newContent(t)
		desc := cs.image(1)
		repo := plain(t, basic(func(w http.ResponseWriter, req *http.Request) {
			switch req.Method {
			case http.MethodPost:
				w.Header().Set("Location", elsewhere.URL+"/upload?sig=secret-of-the-store")
				w.WriteHeader(http.StatusAccepted)
			case http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			default:
				w.WriteHeader(http.StatusCreated)
			}
		}))
		require.NoError(t, repo.Push(t.Context(), desc, cs, event.Scope{}))
		sent := taken()
		require.Len(t, sent, 2)
		for _, s := range sent {
			require.NotContains(t, s, "Basic")
		}
	})
	for name, location := range map[string]string{
		"to an unencrypted place": elsewhere.URL + "/upload", "to a file": "file:///etc/passwd", "nowhere": "",
		"to what is no URL": "http://[::1", "to a host without a name": "https:///x",
	} {
		t.Run("on an upload of an encrypted registry "+name, func(t *testing.T) {
			addr, ca := encrypted(t, func(w http.ResponseWriter, req *http.Request) {
				if req.Method != http.MethodPost {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				if location != "" {
					w.Header().Set("Location", location)
				}
				w.WriteHeader(http.StatusAccepted)
			})
			cs := newContent(t)
			err := client(addr, ca).Repository(parse(t, addr+"/x/y:1"), nil).Push(t.Context(), cs.image(1), cs, event.Scope{})
			require.Error(t, err)
			require.Empty(t, taken())
		})
	}
	for name, realm := range map[string]string{
		"unencrypted": elsewhere.URL + "/token", "that is a file": "file:///etc/passwd", "that is none": "::", "that is empty": "",
	} {
		t.Run("to a token server "+name, func(t *testing.T) {
			addr, ca := encrypted(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, realm))
				w.WriteHeader(http.StatusUnauthorized)
			})
			for _, id := range []string{"s", "client"} {
				_, err := client(addr, ca).Repository(parse(t, addr+"/x/y:1"), session.IDs{id}).Resolve(t.Context())
				require.Error(t, err)
				require.NotContains(t, err.Error(), "was asked")
				require.NotContains(t, err.Error(), "hidden-word")
			}
			require.Empty(t, taken())
		})
	}
	t.Run("when a token server redirects", func(t *testing.T) {
		for _, code := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
			var addr string
			handler := func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/token" {
					http.Redirect(w, req, elsewhere.URL+"/token", code)
					return
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, addr))
				w.WriteHeader(http.StatusUnauthorized)
			}
			s := httptest.NewServer(http.HandlerFunc(handler))
			t.Cleanup(s.Close)
			addr = strings.TrimPrefix(s.URL, "http://")
			c := registry.New(registry.Config{Sessions: sessions})
			_, err := c.Repository(parse(t, addr+"/x/y:1"), session.IDs{"s"}).Resolve(t.Context())
			require.ErrorContains(t, err, "gets no secrets")
			require.Empty(t, taken())
		}
	})
}

func TestSignedURLsAreNotShown(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(store.Close)
	repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+"/blob?X-Amz-Signature=hidden-word", http.StatusTemporaryRedirect)
	})
	_, err := repo.Fetch(t.Context(), payloadDesc(), limit)
	require.ErrorContains(t, err, "403 Forbidden")
	require.NotContains(t, err.Error(), "hidden-word")
	var status remoteserrors.ErrUnexpectedStatus
	require.ErrorAs(t, err, &status)
	require.NotContains(t, status.RequestURL, "hidden-word", "clients are sent the error with its parts")
}
