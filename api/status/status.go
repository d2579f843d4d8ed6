// Package status is the one mapping between Go errors and gRPC statuses.
//
// An error of this project may carry typed records besides its text: the vertex that failed, the
// lines of the source file that ask for it, an exit code, a call stack. ToGRPC puts them into the
// details of a gRPC status and FromGRPC rebuilds them on the other side, so that errors.As finds
// the same types in a client as in the daemon, and the text is the same text. The servers and
// clients of every API use the interceptors of this package and nothing else for it.
//
// The type URLs and the JSON in the details are BuildKit's. A detail that is not known here is
// kept and passed on with the error. The package prints source snippets and stacks; what the
// error means to a build is not its concern.
package status

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/openbuildkit/buildkit/api/giturl"
)

// Error is an error with a code of its own, such as one that came from the other side of a
// connection. Its text is the message without any mention of the code.
type Error struct {
	code codes.Code
	msg  string
	// details are those that have no Go type here, in the order received.
	details []*anypb.Any
}

// New returns an error with a code and a text.
func New(code codes.Code, msg string) error { return &Error{code: code, msg: msg} }

// Error returns the message.
func (e *Error) Error() string { return e.msg }

// Code returns the gRPC code.
func (e *Error) Code() codes.Code { return e.code }

// GRPCStatus returns the status with the details that are not known to this package.
func (e *Error) GRPCStatus() *grpcstatus.Status {
	return grpcstatus.FromProto(&spb.Status{Code: int32(e.code), Message: e.msg, Details: e.details})
}

// Is reports whether target is the sentinel of the code: those of containerd's errdefs,
// context.Canceled and context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	sentinel := sentinelOf(e.code)
	return sentinel != nil && sentinel == target
}

// ToGRPC returns err as an error with a gRPC status: the code that Code finds, the text of err,
// and one detail per typed record in its chain, innermost first. The text of a gRPC error inside
// the chain loses its "rpc error" decoration. It returns nil for nil and wraps err otherwise.
func ToGRPC(err error) error {
	if err == nil {
		return nil
	}
	var done *withStatus
	if errors.As(err, &done) && err == error(done) {
		return err
	}
	return &withStatus{err: err, st: grpcstatus.FromProto(Proto(err))}
}

// Proto returns the status message that ToGRPC would send for err.
func Proto(err error) *spb.Status {
	if err == nil {
		return &spb.Status{}
	}
	code := Code(err)
	if code == codes.OK {
		code = codes.Unknown
	}
	return &spb.Status{Code: int32(code), Message: message(err), Details: details(err)}
}

// withStatus is an error whose status has been made already.
type withStatus struct {
	err error
	st  *grpcstatus.Status
}

func (e *withStatus) Error() string                  { return e.st.Message() }
func (e *withStatus) Unwrap() error                  { return e.err }
func (e *withStatus) GRPCStatus() *grpcstatus.Status { return e.st }

// FromGRPC is the inverse of ToGRPC: it rebuilds the typed records from the details of a gRPC
// status. Errors without a status are returned as they are.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	st, ok := err.(interface{ GRPCStatus() *grpcstatus.Status })
	if !ok {
		return err
	}
	if _, ok := err.(*Error); ok {
		return err
	}
	if st.GRPCStatus() == nil {
		return nil
	}
	return FromProto(st.GRPCStatus().Proto())
}

// FromProto rebuilds the error that a status message describes; nil if its code is OK.
func FromProto(st *spb.Status) error {
	if codes.Code(st.GetCode()) == codes.OK {
		return nil
	}
	base := &Error{code: codes.Code(st.GetCode()), msg: st.GetMessage()}
	err := error(base)
	for _, d := range st.GetDetails() {
		if typed := decodeDetail(d, err); typed != nil {
			err = typed
			continue
		}
		base.details = append(base.details, d)
	}
	return err
}

// Code returns the gRPC code of err: the first one in its chain, depth first and joined errors in
// order, that is neither OK nor Unknown. Nodes of the chain are judged by their own code or
// status, by errno, and by the kinds of containerd's errdefs.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if c := nodeCode(err); c != codes.OK && c != codes.Unknown {
		return c
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return Code(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if inner == nil {
				continue
			}
			if c := Code(inner); c != codes.OK && c != codes.Unknown {
				return c
			}
		}
	default:
		return kindCode(err)
	}
	return codes.Unknown
}

// nodeCode judges one node of a chain without looking below it.
func nodeCode(err error) codes.Code {
	switch e := err.(type) {
	case interface{ Code() codes.Code }:
		return e.Code()
	case interface{ GRPCStatus() *grpcstatus.Status }:
		return e.GRPCStatus().Code()
	case syscall.Errno:
		return errnoCode(e)
	}
	switch err {
	case context.Canceled:
		return codes.Canceled
	case context.DeadlineExceeded:
		return codes.DeadlineExceeded
	}
	return codes.Unknown
}

func kindCode(err error) codes.Code {
	kind := errdefs.Resolve(err)
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if sentinelOf(code) == kind {
			return code
		}
	}
	switch kind {
	case errdefs.ErrConflict, errdefs.ErrNotModified:
		return codes.FailedPrecondition
	}
	return codes.Unknown
}

func sentinelOf(code codes.Code) error {
	switch code {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.InvalidArgument:
		return errdefs.ErrInvalidArgument
	case codes.NotFound:
		return errdefs.ErrNotFound
	case codes.AlreadyExists:
		return errdefs.ErrAlreadyExists
	case codes.PermissionDenied:
		return errdefs.ErrPermissionDenied
	case codes.ResourceExhausted:
		return errdefs.ErrResourceExhausted
	case codes.FailedPrecondition:
		return errdefs.ErrFailedPrecondition
	case codes.Aborted:
		return errdefs.ErrAborted
	case codes.OutOfRange:
		return errdefs.ErrOutOfRange
	case codes.Unimplemented:
		return errdefs.ErrNotImplemented
	case codes.Internal:
		return errdefs.ErrInternal
	case codes.Unavailable:
		return errdefs.ErrUnavailable
	case codes.DataLoss:
		return errdefs.ErrDataLoss
	case codes.Unauthenticated:
		return errdefs.ErrUnauthenticated
	}
	return nil
}

// message returns the text of err, with the text of each raw gRPC error in its chain replaced by
// that error's message, and without credentials: errors quote what was asked for.
func message(err error) string {
	msg := err.Error()
	walk(err, func(node error) {
		st, ok := node.(interface{ GRPCStatus() *grpcstatus.Status })
		if !ok || st.GRPCStatus() == nil {
			return
		}
		if text := node.Error(); strings.HasPrefix(text, "rpc error: ") {
			msg = strings.Replace(msg, text, st.GRPCStatus().Message(), 1)
		}
	})
	// Names of files are bytes; a message with others than those of text cannot be sent.
	return strings.ToValidUTF8(giturl.Redact(msg), "\uFFFD")
}

// walk visits the tree of err, children before their parents and joined errors in order.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
	visit(err)
}
