package registry

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"google.golang.org/grpc/codes"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/api/status"
)

// Sessions gives access to the auth services of clients.
type Sessions interface {
	// Auth returns the auth service of a session. It is an error if the session is gone or
	// offers no such service.
	Auth(ctx context.Context, sessionID string) (authpb.AuthClient, error)
}

const (
	clientID = "buildkit-client"
	// callTime bounds calls to a client, which may run a credential helper.
	callTime = 60 * time.Second
	// basicTime is how long credentials are used before the client is asked for them again.
	basicTime = 5 * time.Minute
	// shortTime is the life of a token that names none, by the distribution specification.
	shortTime = 60 * time.Second
	// maxTokenSize bounds the answer of an authorization server.
	maxTokenSize = 1 << 20
	nonceSize    = 32
)

func newNonce() []byte {
	b := make([]byte, nonceSize)
	_, _ = rand.Read(b) // never fails
	return b
}

// unsupported reports whether a client has no such service or nothing to say.
func unsupported(err error) bool {
	switch status.Code(err) {
	case codes.Unimplemented, codes.Unavailable, codes.NotFound:
		return true
	}
	return false
}

// credentials asks a client for what it knows of host; all is empty if it knows nothing.
func credentials(ctx context.Context, svc authpb.AuthClient, host string) (user, secret string, err error) {
	resp, err := svc.Credentials(ctx, &authpb.CredentialsRequest{Host: host})
	if err != nil {
		if unsupported(err) {
			return "", "", nil
		}
		return "", "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	return resp.GetUsername(), resp.GetSecret(), nil
}

// tokenAuthority reports whether a client fetches tokens for host by itself. The client proves,
// by a signature, that it holds the key that it announces.
func (c *Client) tokenAuthority(ctx context.Context, svc authpb.AuthClient, host string) (bool, error) {
	authority, err := svc.GetTokenAuthority(ctx, &authpb.GetTokenAuthorityRequest{Host: host, Salt: c.salt})
	if err != nil {
		if unsupported(err) {
			return false, nil
		}
		return false, fmt.Errorf("token authority for %s: %w", host, err)
	}
	key := authority.GetPublicKey()
	if len(key) == 0 {
		return false, nil
	}
	if len(key) != ed25519.PublicKeySize {
		return false, fmt.Errorf("token authority for %s: key of %d bytes", host, len(key))
	}
	payload := newNonce()
	resp, err := svc.VerifyTokenAuthority(ctx, &authpb.VerifyTokenAuthorityRequest{
		Host: host, Payload: payload, Salt: c.salt,
	})
	if err != nil {
		return false, fmt.Errorf("token authority for %s: %w", host, err)
	}
	if !signed(key, payload, resp.GetSigned()) {
		return false, fmt.Errorf("token authority for %s: wrong signature", host)
	}
	return true, nil
}

// signed checks a message with the signature in front, as NaCl makes them.
func signed(key ed25519.PublicKey, payload, msg []byte) bool {
	return len(msg) == ed25519.SignatureSize+len(payload) &&
		string(msg[ed25519.SignatureSize:]) == string(payload) &&
		ed25519.Verify(key, payload, msg[:ed25519.SignatureSize])
}

// clientToken lets the client fetch a token.
func clientToken(ctx context.Context, svc authpb.AuthClient, key grantKey) (*grant, error) {
	resp, err := svc.FetchToken(ctx, &authpb.FetchTokenRequest{
		ClientID: clientID, Host: key.host, Realm: key.realm, Service: key.service, Scopes: key.scopeList(),
	})
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token for %s by the client: %w", key.host, err)
	}
	if resp.GetToken() == "" {
		return nil, fmt.Errorf("failed to fetch token for %s by the client: %w", key.host, auth.ErrNoToken)
	}
	return bearerGrant(key, resp.GetToken(), resp.GetExpiresIn()), nil
}

// fetchToken fetches a token with credentials, or without any. A secret without a user is an
// identity token, which only the OAuth form of the request takes.
func (a *authorizer) fetchToken(ctx context.Context, key grantKey, user, secret string) (*grant, error) {
	if secret != "" {
		if err := a.checkRealm(key.realm); err != nil {
			return nil, err
		}
	}
	opts := auth.TokenOptions{
		Realm: key.realm, Service: key.service, Scopes: key.scopeList(), Username: user, Secret: secret,
	}
	if user == "" && secret != "" {
		resp, err := auth.FetchTokenWithOAuth(ctx, a.http, a.client.header, clientID, opts)
		if err != nil {
			return nil, redact(err)
		}
		return bearerGrant(key, resp.AccessToken, int64(resp.ExpiresInSeconds)), nil
	}
	resp, err := auth.FetchToken(ctx, a.http, a.client.header, opts)
	if err != nil {
		return nil, redact(err)
	}
	return bearerGrant(key, resp.Token, int64(resp.ExpiresInSeconds)), nil
}

func basicGrant(key grantKey, user, secret string) *grant {
	header := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
	return &grant{key: key, header: header, expires: time.Now().Add(basicTime)}
}

// bearerGrant counts the life of a token from now, by our own clock, and ends it early enough
// that it does not run out on the way.
func bearerGrant(key grantKey, token string, seconds int64) *grant {
	life := time.Duration(min(max(seconds, 0), int64((24*time.Hour).Seconds()))) * time.Second
	if life == 0 {
		life = shortTime
	}
	return &grant{key: key, header: "Bearer " + token, expires: time.Now().Add(life * 9 / 10)}
}

var errCallTime = errors.New("no answer in time")
