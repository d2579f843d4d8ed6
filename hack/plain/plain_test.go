package plain_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/plain"
)

func TestStepsAreToldByHowTheyEnd(t *testing.T) {
	const text = `#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#2 [1/3] FROM docker.io/library/busybox
#2 CACHED

#3 [2/3] RUN true
#3 CACHED

#4 [3/3] RUN echo hi
#4 ...

#6 [linux/arm64 internal] load metadata for docker.io/library/busybox
#6 DONE 0.0s

#5 exporting to client directory
#5 DONE 0.0s

#4 [3/3] RUN echo hi
#4 0.100 DONE is what it prints
#4 DONE 0.1s
`
	require.Equal(t, []string{"[1/3] FROM docker.io/library/busybox", "[2/3] RUN true"}, plain.Cached(text))
	require.Equal(t, []string{"[3/3] RUN echo hi"}, plain.Executed(text))
}
