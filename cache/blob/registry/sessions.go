package registry

import (
	"context"

	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	"github.com/openbuildkit/buildkit/session"
)

// FromManager returns the auth services of a daemon's sessions.
func FromManager(m *session.Manager) Sessions { return managed{m} }

type managed struct{ m *session.Manager }

func (s managed) Auth(ctx context.Context, id string) (authpb.AuthClient, error) {
	c, err := s.m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return authpb.NewAuthClient(c.Short()), nil
}
