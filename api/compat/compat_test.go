package compat_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/status"
)

func TestOnlyKnownVersionsAreAccepted(t *testing.T) {
	for in, want := range map[int64]compat.Version{0: compat.V30, 10: compat.V10, 20: compat.V20, 30: compat.V30} {
		got, err := compat.Parse(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, in := range []int64{-1, 1, 11, 31, 40, 1 << 40} {
		_, err := compat.Parse(in)
		require.Error(t, err)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}

func TestAMissingFeatureIsATypedError(t *testing.T) {
	err := compat.V10.Lacks("compression=zstd")
	require.EqualError(t, err, "compression=zstd is not supported in compatibility version 10")
	require.Equal(t, codes.Unimplemented, status.Code(err))
	var typed *status.CompatibilityFeatureError
	require.ErrorAs(t, err, &typed)
	require.EqualValues(t, 10, typed.Version)
}
