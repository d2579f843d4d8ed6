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

// Secret is a secret of a session.
type Secret struct {
	Data []byte
	// Session is the id of the session that had it.
	Session string
}

// Get returns a secret from the first session of the group that has it. If none does, the error has
// what each answered, see session.Faults; that of one that has not got it is a *NotFoundError.
func Get(ctx context.Context, m *session.Manager, g session.Group, id string) (Secret, error) {
	var found Secret
	err := m.Ask(ctx, g, func(ctx context.Context, c *session.Caller) error {
		data, err := ask(ctx, c, id)
		if err != nil {
			return err
		}
		found = Secret{Data: data, Session: c.ID()}
		return nil
	})
	return found, err
}

// ask asks one client.
func ask(ctx context.Context, c *session.Caller, id string) ([]byte, error) {
	resp, err := secretspb.NewSecretsClient(c.Short()).GetSecret(ctx, &secretspb.GetSecretRequest{ID: id})
	if code := status.Code(err); code == codes.NotFound || code == codes.Unimplemented {
		return nil, &NotFoundError{ID: id}
	}
	if err == nil && len(resp.GetData()) > MaxSize {
		err = c.Blame(tooBig(id))
	}
	if err != nil && !strings.HasPrefix(err.Error(), "secret ") {
		err = fmt.Errorf("secret %s: %w", id, err)
	}
	return resp.GetData(), err
}

// Optional is Get of a secret that may be missing: empty then. asked are the sessions to blame if what
// it is for fails: the one that had it, or those that have not.
func Optional(ctx context.Context, m *session.Manager, g session.Group, id string) (value string, asked []string, err error) {
	s, err := Get(ctx, m, g, id)
	switch {
	case err == nil:
		return string(s.Data), []string{s.Session}, nil
	case Missing(err) == nil:
		for _, f := range session.Faults(err) {
			asked = append(asked, f.ID)
		}
		return "", asked, nil
	case errors.Is(err, session.ErrNoSession) && len(session.Faults(err)) == 0:
		return "", nil, nil
	}
	return "", nil, Missing(err)
}

// Missing returns what remains of an error of Get for who can do without the secret: nil if nobody
// has it.
func Missing(err error) error {
	return session.Except(err, func(err error) bool {
		var none *NotFoundError
		return errors.As(err, &none)
	})
}

func tooBig(id string) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf("secret %s too big. max size 500KiB", id))
}

var errNoID = errors.New("secret missing ID")
