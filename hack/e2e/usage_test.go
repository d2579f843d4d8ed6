package e2e_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// lastSamples returns the last sample of each step in a predicate of version 1 that ran, by its command.
func lastSamples(t *testing.T, predicate string) map[string]*usage.Sample {
	t.Helper()
	var p struct {
		Definition struct {
			Internal struct {
				Config struct {
					Steps []struct {
						Op struct {
							Op struct {
								Exec struct {
									Meta struct {
										Args []string `json:"args"`
									} `json:"meta"`
								} `json:"exec"`
							}
						} `json:"op"`
						Usage *usage.Samples `json:"resourceUsage"`
					} `json:"llbDefinition"`
				} `json:"buildConfig"`
			} `json:"internalParameters"`
		} `json:"buildDefinition"`
	}
	require.NoError(t, json.Unmarshal([]byte(predicate), &p))
	last := map[string]*usage.Sample{}
	for _, s := range p.Definition.Internal.Config.Steps {
		if args := s.Op.Op.Exec.Meta.Args; len(args) > 0 && s.Usage != nil {
			last[args[len(args)-1]] = s.Usage.Samples[len(s.Usage.Samples)-1]
		}
	}
	return last
}

// What goes through a network that a step has for itself is counted; on the host's nobody knows whose it is.
func TestTrafficOfStepsIsCountedOnNetworksOfTheirOwn(t *testing.T) {
	const bridge, size = "bke2e0", 1 << 20
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
	}))
	web.Listener.Close()
	var err error
	web.Listener, err = net.Listen("tcp", "0.0.0.0:0") //nolint:gosec // steps are not on this host's loopback
	require.NoError(t, err)
	web.Start()
	defer web.Close()
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	require.NoError(t, err)
	get := "wget -q -O /page http://10.211.77.1:" + port + "/"

	d := start(t, harness.DaemonOptions{Config: `
insecure-entitlements = ["network.host"]
[worker.oci]
networkMode = "bridge"
bridgeName = "` + bridge + `"
bridgeSubnet = "10.211.77.0/24"
cniBinaryPath = "/usr/lib/cni"
`})
	defer func() {
		d.Stop(t)
		require.NoError(t, exec.CommandContext(t.Context(), "ip", "link", "delete", bridge).Run())
	}()
	ref, r := recorded(t, d, dockerfile(t, "FROM busybox",
		"RUN "+get, "RUN true", "RUN --network=host "+strings.Replace(get, "10.211.77.1", "127.0.0.1", 1), "RUN --network=none touch /none",
	), "--allow=network.host")
	require.Zero(t, r.Code, r.Stderr)
	last := lastSamples(t, recordedPredicate(t, d, ref))
	require.Len(t, last, 4)
	counted := last[get].Network
	require.NotNil(t, counted)
	require.Greater(t, counted.RxBytes, int64(size))
	require.Less(t, counted.RxBytes, int64(2*size))
	require.Positive(t, counted.RxPackets)
	require.Positive(t, counted.TxBytes)
	require.Less(t, counted.TxBytes, int64(size))
	require.NotNil(t, last["true"].Network)
	require.Less(t, last["true"].Network.RxBytes, int64(size/2), "what others have received is not counted")
	delete(last, get)
	delete(last, "true")
	for command, sample := range last {
		require.Nil(t, sample.Network, command)
	}
}
