package logging_test

import (
	"bytes"
	"testing"

	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cmd/internal/logging"
)

func TestWhatIsHarmlessIsLoggedForDebuggingOnly(t *testing.T) {
	var out bytes.Buffer
	logger := log.L.Logger
	formatter, before, level := logger.Formatter, logger.Out, logger.Level
	t.Cleanup(func() {
		logger.SetFormatter(formatter)
		logger.SetOutput(before)
		logger.SetLevel(level)
	})
	logger.SetOutput(&out)
	for _, format := range []string{"text", "json"} {
		out.Reset()
		require.NoError(t, logging.SetUp(format, "info"))
		_, err := local.NewStore("/proc/self/fdinfo") // where fs-verity cannot be tried
		require.NoError(t, err)
		require.Empty(t, out.String())
		log.L.Warn("something else")
		require.Contains(t, out.String(), "something else")

		require.NoError(t, logging.SetUp(format, "debug"))
		_, err = local.NewStore("/proc/self/fdinfo")
		require.NoError(t, err)
		require.Contains(t, out.String(), "fsverity")
	}
	require.ErrorContains(t, logging.SetUp("xml", "info"), `unsupported log type "xml"`)
	require.ErrorContains(t, logging.SetUp("text", "loud"), "loud")
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	require.EqualError(t, logging.SetUp("xml", "info"), `unsupported log type "xml"`)
	require.EqualError(t, logging.SetUp("text", "loud"), `unsupported log level "loud"`)
}
