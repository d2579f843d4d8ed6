package exporter

import (
	"context"
	"fmt"

	"github.com/openbuildkit/buildkit/session"
)

// Client returns the client that takes the outputs of the build: that of the first session. An
// output is never given to another.
func (e Env) Client(ctx context.Context, sessions *session.Manager) (*session.Caller, error) {
	var ids []string
	if e.Sessions != nil {
		ids = e.Sessions.SessionIDs()
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no client to export to: %w", session.ErrNoSession)
	}
	return sessions.Get(ctx, ids[0])
}
