package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// Goroutines returns how many goroutines the daemon has; it needs DaemonOptions.Debug.
func (d *Daemon) Goroutines(tb testing.TB) int {
	tb.Helper()
	return d.profiled(tb, "goroutine?debug=1", regexp.MustCompile(`^goroutine profile: total (\d+)`))
}

// Heap returns how many bytes the daemon has in use, without what it could do without; it needs
// DaemonOptions.Debug.
func (d *Daemon) Heap(tb testing.TB) int {
	tb.Helper()
	// Finalizers and caches of the runtime let go of the last of it in the second round.
	d.profile(tb, "heap?gc=1")
	return d.profiled(tb, "heap?gc=1&debug=1", regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`))
}

// profiled returns a number that a profile tells.
func (d *Daemon) profiled(tb testing.TB, name string, number *regexp.Regexp) int {
	tb.Helper()
	text := d.profile(tb, name)
	m := number.FindSubmatch(text)
	if m == nil {
		tb.Fatalf("the profile %s of the daemon does not tell %s: %s", name, number, tail(string(text), 1<<10))
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func (d *Daemon) profile(tb testing.TB, name string) []byte {
	tb.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.debugSocket())
		},
	}}
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://daemon/debug/pprof/"+name, nil)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, response.Body); err != nil || response.StatusCode != http.StatusOK {
		tb.Fatal(fmt.Errorf("profile %s of the daemon: %s: %w", name, response.Status, err))
	}
	return text.Bytes()
}
