package control_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

func TestAClientMayKeepItsConnectionAlive(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("unix", strings.TrimPrefix(serve(t, &daemon{}).Target(), "unix://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	// gRPC's own rule ends the connection at the fourth.
	pings := time.NewTicker(1050 * time.Millisecond)
	defer pings.Stop()
	for i := range byte(4) {
		if i > 0 {
			<-pings.C
		}
		require.NoError(t, f.WritePing(false, [8]byte{i}))
		require.Equal(t, [8]byte{i}, answerToPing(t, f))
	}
}

// answerToPing reads up to the next answer to a ping.
func answerToPing(t *testing.T, f *http2.Framer) [8]byte {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		require.NoError(t, err)
		require.IsNotType(t, &http2.GoAwayFrame{}, frame)
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			return ping.Data
		}
	}
}
