package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

// Sentinels for errors.Is. Errors that match them concern the one who asked, not what was asked
// for: another requester, with another session, may succeed.
var (
	// ErrLost matches a LostError.
	ErrLost = errors.New("session lost")
	// ErrNoSession matches an error that says that there is no session to use.
	ErrNoSession = errors.New("no session")
)

// LostError says that a session ended while it was needed.
type LostError struct {
	ID    string
	Cause error
}

func (e *LostError) Error() string {
	return "session " + e.ID + " lost: " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// Is reports whether target is ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Code returns Unavailable.
func (e *LostError) Code() codes.Code { return codes.Unavailable }

// NotActiveError says that no session with the id appeared in time.
type NotActiveError struct {
	ID  string
	Err error
}

func (e *NotActiveError) Error() string {
	return "no active session for " + e.ID + ": " + e.Err.Error()
}

// Unwrap returns the reason that waiting ended.
func (e *NotActiveError) Unwrap() error { return e.Err }

// Is reports whether target is ErrNoSession.
func (e *NotActiveError) Is(target error) bool { return target == ErrNoSession }

type noSessionsError struct{}

func (noSessionsError) Error() string        { return "no active sessions" }
func (noSessionsError) Is(target error) bool { return target == ErrNoSession }
func (noSessionsError) Code() codes.Code     { return codes.FailedPrecondition }

// otherMayServe reports whether another session of a group may do what one failed to do.
func otherMayServe(err error) bool {
	if errors.Is(err, ErrLost) || errors.Is(err, ErrNoSession) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.NotFound, codes.Unimplemented:
		return true
	}
	return false
}

// notUnderstood says whose answer it is that gRPC could not read, which its own errors do not.
func notUnderstood(method string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	text := err.Error()
	switch code := status.Code(err); {
	case code == codes.Internal && (strings.Contains(text, "grpc: failed to unmarshal") || strings.Contains(text, "cardinality violation")),
		code == codes.ResourceExhausted && strings.Contains(text, "grpc: received message larger"):
		return status.New(codes.InvalidArgument, fmt.Sprintf("the answer of the client to %s is none: %s", method, text))
	}
	return err
}

// explain returns the reason of the session's end for an error that the end caused.
func explain(life context.Context, err error) error {
	if err == nil || err == io.EOF || life.Err() == nil {
		return err
	}
	switch status.Code(err) {
	case codes.Canceled, codes.Unavailable, codes.Internal:
		return context.Cause(life)
	}
	return err
}
