// Package secrets hands secrets of the client to the daemon, one at a time and only on request.
//
// A client allows a Provider over a Store of files and environment variables; the daemon asks
// with Get. The package neither keeps secrets nor decides who may use them.
package secrets

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// MaxSize is the largest secret in bytes.
const MaxSize = 500 << 10

// NotFoundError says that no session has a secret.
type NotFoundError struct {
	ID string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("secret %s: not found", e.ID) }

// Code returns NotFound.
func (e *NotFoundError) Code() codes.Code { return codes.NotFound }

// Getter finds secrets by id. A secret that is not there is a *NotFoundError.
type Getter interface {
	Get(ctx context.Context, id string) ([]byte, error)
}

// Provider is the client's service.
type Provider struct {
	secretspb.UnimplementedSecretsServer
	getter Getter
}

// NewProvider returns a service that offers the secrets of a Getter.
func NewProvider(g Getter) *Provider { return &Provider{getter: g} }

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { secretspb.RegisterSecretsServer(srv, p) }

// GetSecret returns one secret.
func (p *Provider) GetSecret(ctx context.Context, req *secretspb.GetSecretRequest) (*secretspb.GetSecretResponse, error) {
	data, err := p.getter.Get(ctx, req.GetID())
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, tooBig(req.GetID())
	}
	return &secretspb.GetSecretResponse{Data: data}, nil
}

// Get returns a secret from the first session of the group that has it. If none does the error is
// a *NotFoundError.
func Get(ctx context.Context, m *session.Manager, g session.Group, id string) ([]byte, error) {
	var data []byte
	err := m.Any(ctx, g, func(ctx context.Context, c *session.Caller) error {
		resp, err := secretspb.NewSecretsClient(c.Conn()).GetSecret(ctx, &secretspb.GetSecretRequest{ID: id})
		if code := status.Code(err); code == codes.NotFound || code == codes.Unimplemented {
			return &NotFoundError{ID: id}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "secret ") {
			err = fmt.Errorf("secret %s: %w", id, err)
		}
		if err != nil {
			return err
		}
		data = resp.GetData()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func tooBig(id string) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf("secret %s too big. max size 500KiB", id))
}

var errNoID = errors.New("secret missing ID")
