package status

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
)

// The kinds below add a record to an error and leave its text alone. In each, Err is the error
// that the record belongs to; only where said so may it be nil.

// VertexError says which vertex of an LLB graph failed.
type VertexError struct {
	Digest string
	Err    error
}

// WithVertex adds the digest of a vertex to err; nil stays nil.
func WithVertex(err error, digest string) error {
	if err == nil {
		return nil
	}
	return &VertexError{Digest: digest, Err: err}
}

func (e *VertexError) Error() string { return e.Err.Error() }
func (e *VertexError) Unwrap() error { return e.Err }

// SourceError says which lines of a source file err is about. Several may nest: the innermost
// is the nearest to the cause.
type SourceError struct {
	Info   *pb.SourceInfo
	Ranges []*pb.Range
	Err    error
}

// WithSource adds a place in a source file to err; nil stays nil, and so does an err for which
// there is no info.
func WithSource(err error, info *pb.SourceInfo, ranges ...*pb.Range) error {
	if err == nil || info == nil {
		return err
	}
	return &SourceError{Info: info, Ranges: ranges, Err: err}
}

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// FrontendError says which frontend an error came out of.
type FrontendError struct {
	Name   string
	Source string
	Err    error
}

// WithFrontend adds the frontend to err; nil stays nil.
func WithFrontend(err error, name, source string) error {
	if err == nil {
		return nil
	}
	return &FrontendError{Name: name, Source: source, Err: err}
}

func (e *FrontendError) Error() string { return e.Err.Error() }
func (e *FrontendError) Unwrap() error { return e.Err }

// FrontendCapError says that a frontend lacks a capability that was required. Err may be nil.
type FrontendCapError struct {
	Name string
	Err  error
}

func (e *FrontendCapError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return "unsupported frontend capability " + e.Name
}

// Unwrap returns Err.
func (e *FrontendCapError) Unwrap() error { return e.Err }

// Code returns Unimplemented.
func (e *FrontendCapError) Code() codes.Code { return codes.Unimplemented }

// SubrequestError says that a frontend does not know a subrequest. Err may be nil.
type SubrequestError struct {
	Name string
	Err  error
}

func (e *SubrequestError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return "unsupported request " + e.Name
}

// Unwrap returns Err.
func (e *SubrequestError) Unwrap() error { return e.Err }

// Code returns Unimplemented.
func (e *SubrequestError) Code() codes.Code { return codes.Unimplemented }

// CompatibilityFeatureError says that a feature is not part of the compatibility version asked
// for. Err may be nil.
type CompatibilityFeatureError struct {
	Version int64
	Feature string
	Err     error
}

func (e *CompatibilityFeatureError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s is not supported in compatibility version %d", e.Feature, e.Version)
}

// Unwrap returns Err.
func (e *CompatibilityFeatureError) Unwrap() error { return e.Err }

// Code returns Unimplemented.
func (e *CompatibilityFeatureError) Code() codes.Code { return codes.Unimplemented }

// MaterialsIncompleteError says which materials a provenance that must be complete lacks.
type MaterialsIncompleteError struct {
	Incomplete []*errdefspb.ProvenanceMaterialIncomplete
	Err        error
}

func (e *MaterialsIncompleteError) Error() string { return e.Err.Error() }
func (e *MaterialsIncompleteError) Unwrap() error { return e.Err }

// SolveError describes the op that failed in a solve of the gateway API, with ids that a
// container may be made from to look into it.
type SolveError struct {
	Solve *errdefspb.Solve
	Err   error
}

func (e *SolveError) Error() string { return e.Err.Error() }
func (e *SolveError) Unwrap() error { return e.Err }

// UnknownExitStatus is the exit code of a process whose own is not known.
const UnknownExitStatus = 255

// ExitError says that a process ended with Code. Err may be nil.
type ExitError struct {
	Code uint32
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("exit code: %d", e.Code)
}

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

// DenyError says that a policy of the session refused a source.
type DenyError struct {
	Messages []*policypb.DenyMessage
	Err      error
}

func (e *DenyError) Error() string { return e.Err.Error() }
func (e *DenyError) Unwrap() error { return e.Err }

// UnknownJobError says that no build has the id. It travels as its code and text.
type UnknownJobError struct {
	ID string
}

func (e *UnknownJobError) Error() string { return "no such job " + e.ID }

// Code returns NotFound.
func (e *UnknownJobError) Code() codes.Code { return codes.NotFound }

// IsUnknownJob reports whether err says that no build has an id, here or on the other side.
func IsUnknownJob(err error) bool {
	var e *UnknownJobError
	return errors.As(err, &e) || Code(err) == codes.NotFound && strings.Contains(err.Error(), "no such job ")
}
