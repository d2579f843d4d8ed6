// Package auth gets registry credentials and tokens from the client.
//
// The client answers from its docker configuration: with credentials, or, so that these need not
// leave it, with tokens that it fetched itself. A token authority is a key that the client derives
// from a seed of its own, a registry host and the daemon's salt: sessions that prove the same key
// may share tokens. A client allows a Provider; the daemon calls the functions. What the
// registry's challenges mean is not known here.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc/codes"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// callTimeout bounds one question to a client, which may ask a credential helper or a user.
const callTimeout = time.Minute

// Login is what a registry wants to know. An empty user with a secret is an identity token; both
// are empty if the client has nothing for the host.
type Login struct {
	Username string
	Secret   string
}

// Credentials asks the sessions of a group for the credentials of a registry host, and returns
// those of the first that answers, with its id. A client without the service has none.
func Credentials(ctx context.Context, m *session.Manager, g session.Group, host string) (sessionID string, login Login, err error) {
	err = ask(ctx, m, g, func(ctx context.Context, c *session.Caller, client authpb.AuthClient) error {
		resp, err := client.Credentials(ctx, &authpb.CredentialsRequest{Host: host})
		if code := status.Code(err); code == codes.Unimplemented || code == codes.NotFound {
			err = nil
		}
		sessionID, login = c.ID(), Login{resp.GetUsername(), resp.GetSecret()}
		return err
	})
	return sessionID, login, err
}

// FetchToken asks for a token that the client fetches from the registry's authorization server.
func FetchToken(ctx context.Context, m *session.Manager, g session.Group, req *authpb.FetchTokenRequest) (*authpb.FetchTokenResponse, error) {
	var resp *authpb.FetchTokenResponse
	err := ask(ctx, m, g, func(ctx context.Context, _ *session.Caller, client authpb.AuthClient) (err error) {
		resp, err = client.FetchToken(ctx, req)
		return err
	})
	return resp, err
}

// NewSalt returns a salt for the authorities of one run of a daemon.
func NewSalt() ([]byte, error) {
	salt := make([]byte, 32)
	_, err := rand.Read(salt)
	return salt, err
}

// PublicKey identifies a token authority.
type PublicKey [32]byte

// GetTokenAuthority asks for the authority of a host. It returns nil without an error if no
// session has one, because the clients do not support it or the user does not want it.
func GetTokenAuthority(ctx context.Context, m *session.Manager, g session.Group, host string, salt []byte) (sessionID string, key *PublicKey, err error) {
	err = ask(ctx, m, g, func(ctx context.Context, c *session.Caller, client authpb.AuthClient) error {
		resp, err := client.GetTokenAuthority(ctx, &authpb.GetTokenAuthorityRequest{Host: host, Salt: salt})
		if err != nil {
			return err
		}
		if len(resp.GetPublicKey()) != len(PublicKey{}) {
			return fmt.Errorf("token authority for %s: public key has %d bytes", host, len(resp.GetPublicKey()))
		}
		key = (*PublicKey)(resp.GetPublicKey())
		sessionID = c.ID()
		return nil
	})
	if notSupported(err) {
		return "", nil, nil
	}
	return sessionID, key, err
}

// VerifyTokenAuthority reports whether a session of the group has the private part of a key, and
// the id of that session.
func VerifyTokenAuthority(ctx context.Context, m *session.Manager, g session.Group, host string, key *PublicKey, salt []byte) (sessionID string, ok bool, err error) {
	payload := make([]byte, 32)
	if _, err := rand.Read(payload); err != nil {
		return "", false, err
	}
	err = ask(ctx, m, g, func(ctx context.Context, c *session.Caller, client authpb.AuthClient) error {
		resp, err := client.VerifyTokenAuthority(ctx, &authpb.VerifyTokenAuthorityRequest{Host: host, Payload: payload, Salt: salt})
		if err != nil {
			return err
		}
		got, valid := sign.Open(nil, resp.GetSigned(), (*[32]byte)(key))
		ok = valid && subtle.ConstantTimeCompare(got, payload) == 1
		sessionID = c.ID()
		return nil
	})
	if notSupported(err) {
		return "", false, nil
	}
	return sessionID, ok, err
}

// notSupported reports whether clients answered that they have no authorities. A session that
// was lost is also unavailable, but says nothing of the kind.
func notSupported(err error) bool {
	if errors.Is(err, session.ErrLost) {
		return false
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Unimplemented
}

func ask(ctx context.Context, m *session.Manager, g session.Group, fn func(context.Context, *session.Caller, authpb.AuthClient) error) error {
	return m.Any(ctx, g, func(ctx context.Context, c *session.Caller) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return fn(ctx, c, authpb.NewAuthClient(c.Conn()))
	})
}
