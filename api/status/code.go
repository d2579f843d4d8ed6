package status

import "google.golang.org/grpc/codes"

// WithCode gives an error a gRPC code. The text stays as it is; nil stays nil.
func WithCode(err error, code codes.Code) error {
	if err == nil {
		return nil
	}
	return &codedError{err: err, code: code}
}

type codedError struct {
	err  error
	code codes.Code
}

func (e *codedError) Error() string    { return e.err.Error() }
func (e *codedError) Unwrap() error    { return e.err }
func (e *codedError) Code() codes.Code { return e.code }
