package op

import (
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// asRequesterError marks errors that are about who asked and not about what was asked for: a
// session that is gone, or credentials that do not do.
func asRequesterError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, session.ErrLost) || errors.Is(err, session.ErrNoSession) || registry.IsDenied(err) {
		return &schedule.RequesterError{Err: err}
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return &schedule.RequesterError{Err: err}
	}
	return err
}
