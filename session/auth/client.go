package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/docker/cli/cli/config/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/api/status"
)

// envNoClientToken, set to a true value, makes the daemon fetch tokens itself.
const envNoClientToken = "BUILDKIT_NO_CLIENT_TOKEN"

// Docker's own registry has another name in the configuration than on the network.
const (
	dockerHost      = "registry-1.docker.io"
	dockerConfigKey = "https://index.docker.io/v1/"
)

const (
	// loginLifetime is how long credentials are kept before their store is asked again.
	loginLifetime = 4*time.Minute + 50*time.Second
	// defaultTokenLifetime is that of tokens that come without one, in seconds.
	defaultTokenLifetime = 60
)

// Logins finds what a user has stored for a registry; *configfile.ConfigFile is one.
type Logins interface {
	GetAuthConfig(registry string) (types.AuthConfig, error)
}

// Config says what a Provider answers from.
type Config struct {
	// Logins may be nil, which knows none.
	Logins Logins
	// SeedDir is the directory for the seeds of token authorities, as a rule that of the docker
	// configuration. If it is empty or can't be written to, seeds last as long as the Provider.
	SeedDir string
	// TLS is for connections to the authorization servers of registries, by registry host.
	TLS map[string]TLSConfig
	// Progress, if not nil, is told when tokens are fetched and credentials are handed out.
	Progress event.Sink
}

// Provider is the client's service.
type Provider struct {
	authpb.UnimplementedAuthServer
	cfg   Config
	seeds *seedStore

	mu     sync.Mutex
	logins map[string]cachedLogin
	shared map[string]bool // hosts whose credentials were shown to be handed out
}

type cachedLogin struct {
	auth    types.AuthConfig
	fetched time.Time
}

// NewProvider returns a service that answers from cfg.
func NewProvider(cfg Config) *Provider {
	return &Provider{
		cfg:    cfg,
		seeds:  newSeedStore(cfg.SeedDir),
		logins: map[string]cachedLogin{},
		shared: map[string]bool{},
	}
}

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { authpb.RegisterAuthServer(srv, p) }

// login returns what the user has stored for a host. One host is asked for at a time.
func (p *Provider) login(host string) (types.AuthConfig, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.logins[host]; ok && time.Since(c.fetched) < loginLifetime {
		return c.auth, nil
	}
	if p.cfg.Logins == nil {
		return types.AuthConfig{}, nil
	}
	key := host
	if host == dockerHost {
		key = dockerConfigKey
	}
	auth, err := p.cfg.Logins.GetAuthConfig(key)
	if err != nil {
		return types.AuthConfig{}, fmt.Errorf("credentials for %s: %w", host, err)
	}
	p.logins[host] = cachedLogin{auth, time.Now()}
	return auth, nil
}

// Credentials returns the credentials of a host.
func (p *Provider) Credentials(_ context.Context, req *authpb.CredentialsRequest) (*authpb.CredentialsResponse, error) {
	login, err := p.credentials(req.GetHost())
	if err != nil {
		return nil, err
	}
	if login.Secret != "" {
		p.showSharing(req.GetHost())
	}
	return &authpb.CredentialsResponse{Username: login.Username, Secret: login.Secret}, nil
}

func (p *Provider) credentials(host string) (Login, error) {
	auth, err := p.login(host)
	if err != nil {
		return Login{}, err
	}
	if auth.IdentityToken != "" {
		return Login{Secret: auth.IdentityToken}, nil
	}
	return Login{Username: auth.Username, Secret: auth.Password}, nil
}

func (p *Provider) showSharing(host string) {
	p.mu.Lock()
	first := !p.shared[host]
	p.shared[host] = true
	p.mu.Unlock()
	if first {
		_ = p.show("sharing credentials for " + host)(nil)
	}
}

// show reports a step and returns the function that ends it.
func (p *Provider) show(name string) func(error) error {
	name = "[auth] " + name
	return event.NewScope(p.cfg.Progress, digest.FromString(name+strconv.FormatInt(time.Now().UnixNano(), 10))).Start(name, nil)
}

// FetchToken returns a token for the scopes of a request.
func (p *Provider) FetchToken(ctx context.Context, req *authpb.FetchTokenRequest) (_ *authpb.FetchTokenResponse, err error) {
	auth, err := p.login(req.GetHost())
	if err != nil {
		return nil, err
	}
	if auth.RegistryToken != "" {
		return tokenResponse(auth.RegistryToken, time.Time{}, 0), nil
	}
	login, err := p.credentials(req.GetHost())
	if err != nil {
		return nil, err
	}
	client, err := p.httpClient(req.GetHost())
	if err != nil {
		return nil, err
	}
	done := p.show(scopeNames(req.GetScopes()) + " token for " + req.GetHost())
	defer func() { _ = done(err) }()
	opt := dockerauth.TokenOptions{
		Realm: req.GetRealm(), Service: req.GetService(), Scopes: req.GetScopes(),
		Username: login.Username, Secret: login.Secret,
	}
	token, err := RequestToken(ctx, client, nil, req.GetClientID(), opt)
	if err != nil {
		return nil, err
	}
	return tokenResponse(token.Value, token.Issued, token.Seconds), nil
}

// scopeNames returns what scopes ask for as a user would say it: library/alpine:pull.
func scopeNames(scopes []string) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = strings.TrimPrefix(s, "repository:")
	}
	return strings.Join(names, " ")
}

func tokenResponse(token string, issued time.Time, expires int) *authpb.FetchTokenResponse {
	if expires == 0 {
		expires = defaultTokenLifetime
	}
	resp := &authpb.FetchTokenResponse{Token: token, ExpiresIn: int64(expires)}
	if !issued.IsZero() {
		resp.IssuedAt = issued.Unix()
	}
	return resp
}

// GetTokenAuthority returns the public key of a host's authority.
func (p *Provider) GetTokenAuthority(_ context.Context, req *authpb.GetTokenAuthorityRequest) (*authpb.GetTokenAuthorityResponse, error) {
	key, err := p.authorityKey(req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &authpb.GetTokenAuthorityResponse{PublicKey: key.Public().(ed25519.PublicKey)}, nil
}

// VerifyTokenAuthority signs a payload with the private key of a host's authority.
func (p *Provider) VerifyTokenAuthority(_ context.Context, req *authpb.VerifyTokenAuthorityRequest) (*authpb.VerifyTokenAuthorityResponse, error) {
	key, err := p.authorityKey(req.GetHost(), req.GetSalt())
	if err != nil {
		return nil, err
	}
	return &authpb.VerifyTokenAuthorityResponse{Signed: sign.Sign(nil, req.GetPayload(), (*[64]byte)(key))}, nil
}

// authorityKey derives the key of a host's authority. Clients without a secret have the same one:
// what they may see is the same.
func (p *Provider) authorityKey(host string, salt []byte) (ed25519.PrivateKey, error) {
	if off, err := strconv.ParseBool(os.Getenv(envNoClientToken)); err == nil && off {
		return nil, status.New(codes.Unavailable, "client side tokens disabled")
	}
	login, err := p.credentials(host)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, salt)
	if login.Secret != "" {
		seed, err := p.seeds.get(host)
		if err != nil {
			return nil, err
		}
		mac.Write(seed)
	}
	return ed25519.NewKeyFromSeed(mac.Sum(nil)[:ed25519.SeedSize]), nil
}
