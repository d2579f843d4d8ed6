//go:build !windows

package main

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASignalCancels(t *testing.T) {
	ctx, stop := withSignals(context.Background())
	defer stop()
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGTERM))
	<-ctx.Done()
	require.ErrorIs(t, context.Cause(ctx), context.Canceled)
	require.EqualError(t, context.Cause(ctx), "terminated: context canceled")
}
