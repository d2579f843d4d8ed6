// Package auth gets registry credentials and tokens from the client.
//
// The client answers from its docker configuration: with credentials, or, so that these need not
// leave it, with tokens that it fetched itself. A token authority is a key that the client derives
// from a seed of its own, a registry host and the daemon's salt; that it can prove to have it says
// that it fetches tokens. A client allows a Provider; the daemon calls the functions, for one
// session at a time. What the registry's challenges mean is not known here.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"

	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc/codes"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// Login is what a registry wants to know. An empty user with a secret is an identity token; both
// are empty if the client has nothing for the host.
type Login struct {
	Username string
	Secret   string
}

// nonceSize is that of salts and of what clients sign, in bytes.
const nonceSize = 32

// Nonce returns random bytes: a salt for the authorities of one run of a daemon, for example.
func Nonce() []byte {
	b := make([]byte, nonceSize)
	_, _ = rand.Read(b) // never fails
	return b
}

// notSupported reports whether a client answered that it has no such service or nothing to say. A
// session that was lost is also unavailable, but says nothing of the kind.
func notSupported(err error) bool {
	if errors.Is(err, session.ErrLost) {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Unimplemented, codes.NotFound:
		return true
	}
	return false
}

// Credentials asks a client for the credentials of a registry host. A client without the service
// has none.
func Credentials(ctx context.Context, client authpb.AuthClient, host string) (Login, error) {
	resp, err := client.Credentials(ctx, &authpb.CredentialsRequest{Host: host})
	if notSupported(err) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("credentials for %s: %w", host, err)
	}
	return Login{resp.GetUsername(), resp.GetSecret()}, nil
}

// FetchToken asks a client for a token that it fetches from the registry's authorization server.
func FetchToken(ctx context.Context, client authpb.AuthClient, req *authpb.FetchTokenRequest) (*authpb.FetchTokenResponse, error) {
	resp, err := client.FetchToken(ctx, req)
	if err == nil && resp.GetToken() == "" {
		err = dockerauth.ErrNoToken
	}
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token for %s by the client: %w", req.GetHost(), err)
	}
	return resp, nil
}

// PublicKey identifies a token authority.
type PublicKey [32]byte

// TokenAuthority asks a client for its authority for a host, and has it prove that it has the
// private part of the key. It returns nil without an error if the client fetches no tokens for
// the host, because it cannot or the user does not want it.
func TokenAuthority(ctx context.Context, client authpb.AuthClient, host string, salt []byte) (*PublicKey, error) {
	resp, err := client.GetTokenAuthority(ctx, &authpb.GetTokenAuthorityRequest{Host: host, Salt: salt})
	switch {
	case notSupported(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("token authority for %s: %w", host, err)
	case len(resp.GetPublicKey()) == 0:
		return nil, nil
	case len(resp.GetPublicKey()) != len(PublicKey{}):
		return nil, fmt.Errorf("token authority for %s: public key has %d bytes", host, len(resp.GetPublicKey()))
	}
	key := (*PublicKey)(resp.GetPublicKey())
	ok, err := VerifyTokenAuthority(ctx, client, host, key, salt)
	if err != nil {
		return nil, fmt.Errorf("token authority for %s: %w", host, err)
	}
	if !ok {
		return nil, fmt.Errorf("token authority for %s: wrong signature", host)
	}
	return key, nil
}

// VerifyTokenAuthority reports whether a client has the private part of a key.
func VerifyTokenAuthority(ctx context.Context, client authpb.AuthClient, host string, key *PublicKey, salt []byte) (bool, error) {
	payload := Nonce()
	resp, err := client.VerifyTokenAuthority(ctx, &authpb.VerifyTokenAuthorityRequest{Host: host, Payload: payload, Salt: salt})
	if err != nil {
		return false, err
	}
	got, ok := sign.Open(nil, resp.GetSigned(), (*[32]byte)(key))
	return ok && subtle.ConstantTimeCompare(got, payload) == 1, nil
}
