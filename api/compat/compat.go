// Package compat names the versions of behaviour that a build can ask for, so that its outputs
// stay what they were when defaults change. The control service reads the version of a request;
// exporters and sources that have changed look at it.
package compat

import (
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

// Version is a version of behaviour. Later ones are greater.
type Version int

// The versions that requests may name.
const (
	// V10 is the oldest: git checkouts are writable for everybody, zstd layers are not known.
	V10 Version = 10
	// V20 gives images Docker's media types unless something in them needs those of OCI.
	V20 Version = 20
	// V30 gives images OCI's media types.
	V30 Version = 30

	Current = V30
)

// Parse reads the version of a request; 0 stands for the current one. An unknown version is
// InvalidArgument.
func Parse(v int64) (Version, error) {
	switch version := Version(v); version {
	case 0:
		return Current, nil
	case V10, V20, V30:
		return version, nil
	}
	return 0, status.New(codes.InvalidArgument, fmt.Sprintf("unknown compatibility version %d", v))
}

// Lacks returns the error for a feature that version v did not have: a
// status.CompatibilityFeatureError.
func (v Version) Lacks(feature string) error {
	return &status.CompatibilityFeatureError{Version: int64(v), Feature: feature}
}
