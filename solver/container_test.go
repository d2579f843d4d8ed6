package solver

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

func TestContainersAndProcessesAreCounted(t *testing.T) {
	var cs containers
	for range maxContainers {
		require.NoError(t, cs.reserve())
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(cs.reserve()))
	cs.forget(nil)
	require.NoError(t, cs.reserve(), "one has gone")

	for range maxProcesses {
		require.NoError(t, cs.enter())
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(cs.enter()))
	cs.leave()
	require.NoError(t, cs.enter())

	require.NoError(t, cs.close())
	require.EqualError(t, cs.reserve(), "the frontend of the build has ended")
	require.False(t, cs.add(nil), "one that was on its way comes too late")
}
