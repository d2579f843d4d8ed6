package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
)

// fakeSessions are the auth services of clients by session id.
type fakeSessions map[string]*fakeAuth

func (f fakeSessions) Auth(_ context.Context, id string) (authpb.AuthClient, error) {
	a := f[id]
	if a == nil {
		return nil, errors.New("session is gone")
	}
	return a, nil
}

// fakeAuth is a client. One with token fetches tokens by itself.
type fakeAuth struct {
	user, secret string
	token        func(*authpb.FetchTokenRequest) (*authpb.FetchTokenResponse, error)
	key          ed25519.PrivateKey
	forge        bool
	asked        atomic.Int32
}

func (f *fakeAuth) Credentials(context.Context, *authpb.CredentialsRequest, ...grpc.CallOption) (*authpb.CredentialsResponse, error) {
	f.asked.Add(1)
	return &authpb.CredentialsResponse{Username: f.user, Secret: f.secret}, nil
}

func (f *fakeAuth) FetchToken(_ context.Context, req *authpb.FetchTokenRequest, _ ...grpc.CallOption) (*authpb.FetchTokenResponse, error) {
	f.asked.Add(1)
	return f.token(req)
}

func (f *fakeAuth) GetTokenAuthority(_ context.Context, req *authpb.GetTokenAuthorityRequest, _ ...grpc.CallOption) (*authpb.GetTokenAuthorityResponse, error) {
	if f.token == nil {
		return nil, status.Error(codes.Unavailable, "no client side tokens")
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	f.key = key
	return &authpb.GetTokenAuthorityResponse{PublicKey: pub}, err
}

func (f *fakeAuth) VerifyTokenAuthority(_ context.Context, req *authpb.VerifyTokenAuthorityRequest, _ ...grpc.CallOption) (*authpb.VerifyTokenAuthorityResponse, error) {
	signed := append(ed25519.Sign(f.key, req.GetPayload()), req.GetPayload()...)
	if f.forge {
		signed[0]++
	}
	return &authpb.VerifyTokenAuthorityResponse{Signed: signed}, nil
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o600))
}

func writeCA(t *testing.T, file string, cert *x509.Certificate) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	require.NoError(t, os.WriteFile(file, data, 0o600))
}
