package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/session/auth"
)

// Sessions gives access to the auth services of clients.
type Sessions interface {
	// Auth returns the auth service of a session. It is an error if the session is gone or
	// offers no such service.
	Auth(ctx context.Context, sessionID string) (authpb.AuthClient, error)
}

const (
	// callTime bounds calls to a client, which may run a credential helper.
	callTime = 60 * time.Second
	// basicTime is how long credentials are used before the client is asked for them again.
	basicTime = 5 * time.Minute
	// shortTime is the life of a token that names none, by the distribution specification.
	shortTime = 60 * time.Second
	// maxTokenSize bounds the answer of an authorization server.
	maxTokenSize = 1 << 20
)

// clientToken lets the client fetch a token.
func clientToken(ctx context.Context, svc authpb.AuthClient, key grantKey) (*grant, error) {
	resp, err := auth.FetchToken(ctx, svc, &authpb.FetchTokenRequest{
		ClientID: auth.DefaultClientID, Host: key.host, Realm: key.realm, Service: key.service, Scopes: key.scopeList(),
	})
	if err != nil {
		return nil, err
	}
	return bearerGrant(key, resp.GetToken(), resp.GetExpiresIn()), nil
}

// fetchToken fetches a token with credentials, or without any.
func (a *authorizer) fetchToken(ctx context.Context, key grantKey, login auth.Login) (*grant, error) {
	if login.Secret != "" {
		if err := a.checkRealm(key.realm); err != nil {
			return nil, err
		}
	}
	token, err := auth.RequestToken(ctx, a.http, a.client.header, auth.DefaultClientID, dockerauth.TokenOptions{
		Realm: key.realm, Service: key.service, Scopes: key.scopeList(), Username: login.Username, Secret: login.Secret,
	})
	if err != nil {
		return nil, redact(err)
	}
	return bearerGrant(key, token.Value, int64(token.Seconds)), nil
}

func basicGrant(key grantKey, login auth.Login) *grant {
	header := "Basic " + base64.StdEncoding.EncodeToString([]byte(login.Username+":"+login.Secret))
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
