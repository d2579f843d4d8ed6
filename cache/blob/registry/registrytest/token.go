package registrytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TokenServer issues the tokens that a registry started with it asks for: by the token
// authentication of the distribution project, signed for that registry.
type TokenServer struct {
	// URL is the realm; CA the file with the certificate of its authority if it is encrypted.
	URL, CA string

	users  map[string]string
	rights func(user, repository string) string
	key    *ecdsa.PrivateKey
	cert   []byte

	mu     sync.Mutex
	issued []string
}

// TokenOptions of a token server.
type TokenOptions struct {
	// TLS serves https with a certificate of a CA of its own.
	TLS bool
	// Users are names and passwords. Anybody may ask without.
	Users map[string]string
	// Rights returns the actions, such as "pull,push", that a user has for a repository. The user
	// is empty for those without a name.
	Rights func(user, repository string) string
}

const (
	tokenService = "registry.test"
	tokenIssuer  = "issuer.test"
)

// StartTokens runs a token server until the test ends.
func StartTokens(t testing.TB, opt TokenOptions) *TokenServer {
	t.Helper()
	s := &TokenServer{users: opt.Users, rights: opt.Rights}
	var err error
	s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	self := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "tokens"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	s.cert, err = x509.CreateCertificate(rand.Reader, self, self, s.key.Public(), s.key)
	must(t, err)
	srv := httptest.NewUnstartedServer(s)
	if opt.TLS {
		srv.StartTLS()
		s.CA = filepath.Join(t.TempDir(), "ca.pem")
		writePEM(t, s.CA, "CERTIFICATE", srv.Certificate().Raw)
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	s.URL = srv.URL + "/token"
	return s
}

// Issued returns the scopes of the tokens issued since it was called last, each with the user in
// front: "ann repository:x:pull".
func (s *TokenServer) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	issued := slices.Clone(s.issued)
	s.issued = nil
	return issued
}

// ServeHTTP answers GET with basic authorization and POST with a form.
func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, named := r.BasicAuth()
	scopes := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		user, password, named = r.PostFormValue("username"), r.PostFormValue("password"), true
		scopes = strings.Fields(r.PostFormValue("scope"))
	}
	if named && (s.users[user] != password || password == "") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	s.issued = append(s.issued, strings.TrimSpace(user+" "+strings.Join(scopes, " ")))
	s.mu.Unlock()
	token := s.sign(user, s.granted(user, scopes))
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// granted returns what a user has the right to, of what is asked for.
func (s *TokenServer) granted(user string, scopes []string) []access {
	all := []access{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		i := strings.LastIndexByte(rest, ':')
		if i < 0 {
			continue
		}
		have := strings.Split(s.rights(user, rest[:i]), ",")
		actions := slices.DeleteFunc(strings.Split(rest[i+1:], ","), func(a string) bool { return !slices.Contains(have, a) })
		if len(actions) > 0 {
			all = append(all, access{kind, rest[:i], actions})
		}
	}
	return all
}

// sign makes a JSON web token.
func (s *TokenServer) sign(user string, granted []access) string {
	encode := func(v map[string]any) string {
		data, _ := json.Marshal(maps.Clone(v))
		return base64.RawURLEncoding.EncodeToString(data)
	}
	now := time.Now().Unix()
	text := encode(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": [][]byte{s.cert}}) + "." + encode(map[string]any{
		"iss": tokenIssuer, "sub": user, "aud": tokenService, "access": granted,
		"iat": now - 10, "nbf": now - 10, "exp": now + 300, "jti": rand.Text(),
	})
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	a.FillBytes(sig[:32])
	b.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}
