package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"

	"github.com/openbuildkit/buildkit/session"
)

// authorizer answers the challenges of one registry host with what the sessions of one request
// offer: the first session that knows credentials serves; one whose credentials are refused is
// passed over for the next. It implements docker.Authorizer.
type authorizer struct {
	client       *Client
	host, scheme string
	// lax allows credentials to travel unencrypted, as the operator configured the host.
	lax      bool
	sessions session.Group
	// http reaches authorization servers.
	http *http.Client

	mu        sync.Mutex
	challenge *auth.Challenge
	// sent are the grants of headers that were used, to know whose was refused.
	sent map[string]*grant
	// denied are the sessions whose credentials the host refused.
	denied []string
}

// Authorize adds the header that the host is known to want. It adds none for another host, where
// a redirect may lead.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	a.mu.Lock()
	challenge := a.challenge
	a.mu.Unlock()
	if challenge == nil || req.URL.Host != a.host || req.URL.Scheme != a.scheme {
		return nil
	}
	g, err := a.grant(ctx, *challenge)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.sent) > 64 {
		clear(a.sent)
	}
	if a.sent == nil {
		a.sent = map[string]*grant{}
	}
	a.sent[g.header] = g
	req.Header.Set("Authorization", g.header)
	return nil
}

// AddResponses learns from a response with status 401 and returns nil if the request should be
// made again.
func (a *authorizer) AddResponses(_ context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if last.Request.URL.Host != a.host {
		return fmt.Errorf("authorization at %s: %w", last.Request.URL.Host, errdefs.ErrNotImplemented)
	}
	i := slices.IndexFunc(auth.ParseAuthHeader(last.Header), func(c auth.Challenge) bool {
		return c.Scheme == auth.BearerAuth || c.Scheme == auth.BasicAuth
	})
	if i < 0 {
		return fmt.Errorf("no supported authorization scheme: %w", errdefs.ErrNotImplemented)
	}
	challenge := auth.ParseAuthHeader(last.Header)[i]

	a.mu.Lock()
	defer a.mu.Unlock()
	a.challenge = &challenge
	header := last.Request.Header.Get("Authorization")
	if header == "" {
		return nil
	}
	g := a.sent[header]
	if g == nil {
		return refused(challenge)
	}
	a.client.grants.drop(g)
	if g.reused() {
		return nil // it may have expired; the next one is new
	}
	if g.key.session == "" || slices.Contains(a.denied, g.key.session) {
		return refused(challenge)
	}
	a.denied = append(a.denied, g.key.session)
	return nil
}

// refused is the error of credentials that do not suffice, or of none.
func refused(c auth.Challenge) error {
	if msg := c.Parameters["error"]; msg != "" {
		return fmt.Errorf("server message: %s: %w", printable(msg), docker.ErrInvalidAuthorization)
	}
	return docker.ErrInvalidAuthorization
}

// errNoCredentials says that a session knows nothing of a host.
var errNoCredentials = errors.New("no credentials")

// grant returns a header for the challenge, of the first session that has one.
func (a *authorizer) grant(ctx context.Context, c auth.Challenge) (*grant, error) {
	key := grantKey{host: a.host, scheme: c.Scheme}
	if c.Scheme == auth.BearerAuth {
		opts, err := auth.GenerateTokenOptions(ctx, a.host, "", "", c)
		if err != nil {
			return nil, err
		}
		key.realm, key.service = opts.Realm, opts.Service
		key.setScopes(docker.GetTokenScopes(ctx, opts.Scopes))
	}
	var first error
	for _, id := range a.candidates() {
		key.session = id
		g, err := a.client.grants.get(ctx, key, func(ctx context.Context) (*grant, error) {
			return a.ask(ctx, key)
		})
		if err == nil {
			return g, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if first == nil && !errors.Is(err, errNoCredentials) {
			first = err
		}
	}
	a.mu.Lock()
	denied := len(a.denied) > 0
	a.mu.Unlock()
	switch {
	case first != nil:
		return nil, first
	case denied:
		return nil, refused(c)
	case c.Scheme == auth.BasicAuth:
		return nil, fmt.Errorf("%w: no basic auth credentials", docker.ErrInvalidAuthorization)
	}
	key.session = ""
	return a.client.grants.get(ctx, key, func(ctx context.Context) (*grant, error) {
		g, err := a.fetchToken(ctx, key, "", "")
		if err != nil {
			return nil, fmt.Errorf("failed to fetch anonymous token: %w", err)
		}
		return g, nil
	})
}

// candidates are the sessions that were not refused yet.
func (a *authorizer) candidates() []string {
	if a.sessions == nil || a.client.cfg.Sessions == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(a.sessions.SessionIDs(), func(id string) bool {
		return slices.Contains(a.denied, id)
	})
}

// ask gets a grant from a session: a token that the client fetches itself if it can, so that its
// secret stays with it, otherwise one made of its credentials.
func (a *authorizer) ask(ctx context.Context, key grantKey) (*grant, error) {
	svc, err := a.client.cfg.Sessions.Auth(ctx, key.session)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoCredentials, err)
	}
	if key.scheme == auth.BearerAuth {
		ok, err := a.client.tokenAuthority(ctx, svc, key.host)
		if err != nil {
			return nil, err
		}
		if ok {
			return clientToken(ctx, svc, key)
		}
	}
	user, secret, err := credentials(ctx, svc, key.host)
	if err != nil {
		return nil, err
	}
	if secret == "" {
		return nil, errNoCredentials
	}
	if key.scheme == auth.BasicAuth {
		if user == "" {
			return nil, errNoCredentials // an identity token is of no use here
		}
		return basicGrant(key, user, secret), nil
	}
	g, err := a.fetchToken(ctx, key, user, secret)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token: %w", err)
	}
	return g, nil
}

// checkRealm refuses to send a secret unencrypted on behalf of a registry that is encrypted.
func (a *authorizer) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	if err != nil {
		return fmt.Errorf("invalid token auth challenge realm: %w", err)
	}
	if u.Scheme != "https" && !a.lax {
		return fmt.Errorf("%w: %s refers to the unencrypted authorization server %s",
			docker.ErrInvalidAuthorization, a.host, u.Host)
	}
	return nil
}
