package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// DefaultClientID is the name under which tokens are asked for.
const DefaultClientID = "buildkit-client"

// Token is what an authorization server issued.
type Token struct {
	Value string
	// Issued is zero if the server did not tell.
	Issued time.Time
	// Seconds is how long it is good for; 0 if the server did not tell.
	Seconds int
}

// RequestToken asks an authorization server for a token: with a POST if there is a secret, and
// with a GET otherwise or if the server does not know the former. A secret is never sent to where
// the server redirects to, unless that is the same host and not less encrypted. The caller decides
// whether the realm may have the secret at all.
func RequestToken(ctx context.Context, client *http.Client, header http.Header, clientID string, opt dockerauth.TokenOptions) (Token, error) {
	if clientID == "" {
		clientID = DefaultClientID
	}
	kind := "anonymous"
	if opt.Secret != "" {
		kind = "oauth"
		careful := *client
		careful.CheckRedirect = keepSecrets
		client = &careful
		resp, err := dockerauth.FetchTokenWithOAuth(ctx, client, header, clientID, opt)
		if err == nil {
			return Token{resp.AccessToken, resp.IssuedAt, resp.ExpiresInSeconds}, nil
		}
		if !postUnknown(err, opt.Username) {
			return Token{}, fmt.Errorf("failed to fetch oauth token: %w", err)
		}
	}
	resp, err := dockerauth.FetchToken(ctx, client, header, opt)
	if err != nil {
		return Token{}, fmt.Errorf("failed to fetch %s token: %w", kind, err)
	}
	return Token{resp.Token, resp.IssuedAt, resp.ExpiresInSeconds}, nil
}

// keepSecrets is the policy for redirects of requests with secrets.
func keepSecrets(req *http.Request, via []*http.Request) error {
	from, to := via[0].URL, req.URL
	switch {
	case len(via) >= 10:
		return errors.New("stopped after 10 redirects")
	case from.Hostname() == to.Hostname() && (from.Scheme == to.Scheme && from.Port() == to.Port() || to.Scheme == "https"):
		return nil
	}
	return fmt.Errorf("the authorization server %s redirects to %s, which gets no secrets", from.Host, to.Host)
}

// postUnknown reports whether a server may know only GET. Without a user name a GET can't carry
// the secret.
func postUnknown(err error, username string) bool {
	var unexpected remoteerrors.ErrUnexpectedStatus
	if username == "" || !errors.As(err, &unexpected) {
		return false
	}
	switch unexpected.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotFound, http.StatusUnauthorized:
		return true
	}
	return false
}
