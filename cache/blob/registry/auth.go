package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/auth"
)

const maxRedirects = 10

var errRedirects = errors.New("stopped after 10 redirects")

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
	challenge *dockerauth.Challenge
	// sent are the grants of headers that were used, to know whose was refused.
	sent map[string]*grant
	// denied are the sessions whose credentials the host refused.
	denied []string
	// passed is how many of them a request had been refused with when it was made again.
	passed int
	// last is the session whose credentials were used last, empty if it was nobody's; lacking are why
	// sessions had none, the last time that none had.
	last    string
	lacking []*session.Fault
}

// Authorize adds the header that the host is known to want. It adds none for another host, where
// a redirect may lead.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	if !a.at(req.URL) {
		return nil
	}
	challenge, remembered := a.expected()
	if challenge == nil {
		return nil
	}
	g, err := a.grant(ctx, *challenge)
	if err != nil {
		if remembered && ctx.Err() == nil {
			return nil // it may want none for this repository
		}
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
	a.last = g.key.session
	req.Header.Set("Authorization", g.header)
	return nil
}

// at reports whether u is on the host.
func (a *authorizer) at(u *url.URL) bool {
	return u.Host == a.host && (u.Scheme == a.scheme || a.lax)
}

// redirect follows redirects of the host. Elsewhere nothing is sent that is meant for the host:
// net/http would send it to other ports, too.
func (a *authorizer) redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errRedirects
	}
	req.Header.Del("Authorization")
	if req.Body != nil && req.URL.Scheme != "https" && !a.lax {
		return fmt.Errorf("%s redirects an upload to the unencrypted %s", a.host, req.URL.Host)
	}
	return a.Authorize(req.Context(), req)
}

// expected returns the challenge to expect: that of the last answer to this request's requests or,
// remembered, to another's.
func (a *authorizer) expected() (c *dockerauth.Challenge, remembered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.challenge != nil {
		return a.challenge, false
	}
	return a.client.rememberedChallenge(a.scheme + "://" + a.host), true
}

// learn keeps a challenge for the requests that follow. The scopes of a tentative request are not
// what others need.
func (a *authorizer) learn(c dockerauth.Challenge, tentative bool) {
	general := dockerauth.Challenge{Scheme: c.Scheme, Parameters: maps.Clone(c.Parameters)}
	delete(general.Parameters, "scope")
	a.client.rememberChallenge(a.scheme+"://"+a.host, general)
	if tentative {
		if a.challenge != nil && a.challenge.Scheme == c.Scheme {
			return
		}
		c = general
	}
	a.challenge = &c
}

// AddResponses learns from a response with status 401 and returns nil if the request should be
// made again.
func (a *authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if !a.at(last.Request.URL) {
		return fmt.Errorf("authorization at %s: %w", last.Request.URL.Host, errdefs.ErrNotImplemented)
	}
	challenges := dockerauth.ParseAuthHeader(last.Header)
	i := slices.IndexFunc(challenges, func(c dockerauth.Challenge) bool {
		return c.Scheme == dockerauth.BearerAuth || c.Scheme == dockerauth.BasicAuth
	})
	if i < 0 {
		return fmt.Errorf("no supported authorization scheme: %w", errdefs.ErrNotImplemented)
	}
	challenge := challenges[i]

	a.mu.Lock()
	defer a.mu.Unlock()
	a.learn(challenge, isTentative(ctx))
	header := last.Request.Header.Get("Authorization")
	if header == "" {
		return nil
	}
	g := a.sent[header]
	if g == nil {
		return refused(challenge)
	}
	a.client.grants.drop(g)
	if g.reused() && !a.triedBefore(g, responses[:len(responses)-1]) {
		return nil // it may have expired; the next one is new
	}
	if isTentative(ctx) || g.key.session == "" || slices.Contains(a.denied, g.key.session) {
		return refused(challenge)
	}
	a.denied = append(a.denied, g.key.session)
	return nil
}

// triedBefore reports whether a request was refused already with a grant like g.
func (a *authorizer) triedBefore(g *grant, responses []*http.Response) bool {
	return slices.ContainsFunc(responses, func(r *http.Response) bool {
		other := a.sent[r.Request.Header.Get("Authorization")]
		return other != nil && other.key == g.key
	})
}

// refused is the error of credentials that do not suffice, or of none.
func refused(c dockerauth.Challenge) error {
	if msg := c.Parameters["error"]; msg != "" {
		return fmt.Errorf("server message: %s: %w", printable(msg), docker.ErrInvalidAuthorization)
	}
	return docker.ErrInvalidAuthorization
}

// errNoCredentials says that a session knows nothing of a host.
var errNoCredentials = errors.New("no credentials")

// grant returns a header for the challenge, of the first session that has one.
func (a *authorizer) grant(ctx context.Context, c dockerauth.Challenge) (*grant, error) {
	key := grantKey{host: a.host, scheme: c.Scheme}
	if c.Scheme == dockerauth.BearerAuth {
		opts, err := dockerauth.GenerateTokenOptions(ctx, a.host, "", "", c)
		if err != nil {
			return nil, err
		}
		key.realm, key.service = opts.Realm, opts.Service
		key.setScopes(mergeScopes(docker.GetTokenScopes(ctx, opts.Scopes)))
	}
	var lacking, failed []*session.Fault
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
		f := &session.Fault{ID: id, Err: err}
		if errors.Is(err, errNoCredentials) {
			lacking = append(lacking, f)
		} else {
			failed = append(failed, f)
		}
	}
	if len(failed) > 0 {
		lacking = failed // the others may do without any
	}
	a.mu.Lock()
	a.lacking = lacking
	denied := len(a.denied) > 0
	a.mu.Unlock()
	switch {
	case len(failed) > 0:
		return nil, failed[0].Err
	case denied:
		return nil, refused(c)
	case c.Scheme == dockerauth.BasicAuth:
		return nil, fmt.Errorf("%w: no basic auth credentials", docker.ErrInvalidAuthorization)
	}
	key.session = ""
	return a.client.grants.get(ctx, key, func(ctx context.Context) (*grant, error) {
		return a.fetchToken(ctx, key, auth.Login{})
	})
}

// again tells whether a request that the host denied should be made again, with the credentials of a
// session that it has not refused yet: it may say so in other ways than with a challenge.
func (a *authorizer) again(err error) bool {
	var status remoteserrors.ErrUnexpectedStatus
	if !IsDenied(err) || !errors.As(err, &status) {
		return false // all were asked
	}
	if u, perr := url.Parse(status.RequestURL); perr != nil || !a.at(u) {
		return false // it is denied by where the host has sent us
	}
	a.mu.Lock()
	if a.last != "" && !slices.Contains(a.denied, a.last) {
		a.denied = append(a.denied, a.last)
	}
	more := len(a.denied) > a.passed
	a.passed = len(a.denied)
	a.mu.Unlock()
	return more && len(a.candidates()) > 0
}

// blame returns the error that the host denies something as the fault of all sessions that were
// asked: their credentials were refused, or they have none. They may try again.
func (a *authorizer) blame(err error) error {
	if !IsDenied(err) || len(session.Faults(err)) > 0 {
		return err
	}
	err = redact(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	var faults []*session.Fault
	for _, id := range a.denied {
		faults = append(faults, &session.Fault{ID: id, Err: err})
	}
	for _, f := range a.lacking {
		faults = append(faults, &session.Fault{ID: f.ID, Err: err})
	}
	a.denied, a.passed, a.lacking = nil, 0, nil
	if len(faults) == 0 {
		return err
	}
	return session.Refuse(faults...)
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
	if key.scheme == dockerauth.BearerAuth {
		authority, err := auth.TokenAuthority(ctx, svc, key.host, a.client.salt)
		if err != nil {
			return nil, err
		}
		if authority != nil {
			if err := a.checkRealm(key.realm); err != nil {
				return nil, err
			}
			return clientToken(ctx, svc, key)
		}
	}
	login, err := auth.Credentials(ctx, svc, key.host)
	if err != nil {
		return nil, err
	}
	if login.Secret == "" {
		return nil, errNoCredentials
	}
	if key.scheme == dockerauth.BasicAuth {
		if login.Username == "" {
			return nil, errNoCredentials // an identity token is of no use here
		}
		return basicGrant(key, login), nil
	}
	return a.fetchToken(ctx, key, login)
}

// checkRealm refuses to send a secret unencrypted on behalf of a registry that is encrypted.
func (a *authorizer) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	if err != nil {
		return fmt.Errorf("invalid token auth challenge realm: %w", err)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !a.lax) {
		return fmt.Errorf("%w: %s refers to the unencrypted authorization server %s",
			docker.ErrInvalidAuthorization, a.host, u.Host)
	}
	return nil
}

// rememberedChallenge returns what a host, given with its scheme, asked for before.
func (c *Client) rememberedChallenge(origin string) *dockerauth.Challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.challenges[origin]; ok {
		return &known
	}
	return nil
}

func (c *Client) rememberChallenge(origin string, challenge dockerauth.Challenge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.challenges[origin] = challenge
}
