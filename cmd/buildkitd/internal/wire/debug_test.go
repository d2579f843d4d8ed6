package wire_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/client/llb"
)

// ask makes a request to the debug server.
func (d *daemon) ask(t *testing.T, method, path string) (code int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.debug)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://daemon"+path, nil)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(data)
}

func TestTheFlightRecorderIsReadAndSet(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "root"), time.Minute)
	const path = "/debug/flight/trace"
	code, body := d.ask(t, http.MethodGet, path)
	require.Equal(t, http.StatusConflict, code, body)
	for _, good := range []string{"/start", "/start", "/set_period?period=2s"} {
		code, body = d.ask(t, http.MethodPost, path+good)
		require.Equal(t, http.StatusOK, code, body)
	}
	code, body = d.ask(t, http.MethodGet, path)
	require.Equal(t, http.StatusOK, code, body)
	require.True(t, strings.HasPrefix(body, "go 1."), "what go tool trace reads")
	for _, bad := range []string{"", "?period=fast", "?period=-1s", "?period=11m"} {
		code, _ = d.ask(t, http.MethodPost, path+"/set_period"+bad)
		require.Equal(t, http.StatusBadRequest, code, bad)
	}
	code, _ = d.ask(t, http.MethodGet, path+"/start")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	for range 2 {
		code, body = d.ask(t, http.MethodPost, path+"/stop")
		require.Equal(t, http.StatusOK, code, body)
	}
	code, _ = d.ask(t, http.MethodGet, path)
	require.Equal(t, http.StatusConflict, code)
}

func TestCallsAreShown(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "root"), 50*time.Millisecond) // the build does not end by itself
	ended, _, ctx := d.drive(t, "a-build")
	page := d.get(t, "/debug/requests")
	require.Contains(t, page, "moby.buildkit.v1.Control")
	active := d.get(t, "/debug/requests?fam=moby.buildkit.v1.Control&b=-1")
	require.Contains(t, active, "Solve")
	require.NotContains(t, active, "a-build", "nothing of what is asked for")
	_, err := d.control().Status(ctx, &controlpb.StatusRequest{Ref: "a-build"})
	require.NoError(t, err)
	d.stop()
	require.Error(t, <-ended)
}

func TestKeysAreShown(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "root"), time.Minute)
	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("text"))).Marshal(t.Context())
	require.NoError(t, err)
	_, err = d.control().Solve(t.Context(), &controlpb.SolveRequest{Ref: "r", Definition: def})
	require.NoError(t, err)
	type shown struct {
		Key, Op string
		Results []struct{ ID string }
	}
	read := func(text string) (keys []shown) {
		for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
			var k shown
			require.NoError(t, dec.Decode(&k))
			keys = append(keys, k)
		}
		return keys
	}
	all := read(d.get(t, "/debug/cache/all"))
	require.Len(t, all, 1)
	require.Len(t, all[0].Results, 1)
	require.Equal(t, all, read(d.get(t, "/debug/cache/lookup?key="+all[0].Key)))
	require.Equal(t, all, read(d.get(t, "/debug/cache/lookup?result="+all[0].Results[0].ID)))
	usage, err := d.control().DiskUsage(t.Context(), &controlpb.DiskUsageRequest{})
	require.NoError(t, err)
	require.Equal(t, usage.GetRecord()[0].GetID(), all[0].Results[0].ID)

	for query, want := range map[string]int{"": http.StatusNotFound, "?result=none": http.StatusNotFound, "?key=x": http.StatusBadRequest, "?key=" + strings.Repeat("0", 32): http.StatusNotFound} {
		code, _ := d.ask(t, http.MethodGet, "/debug/cache/lookup"+query)
		require.Equal(t, want, code, query)
	}
}
