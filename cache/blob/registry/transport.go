package registry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// transports are the connections to one host.
type transports struct {
	base, slow *http.Transport
	// lenient is base, and lenientSlow slow, with http where the host does not speak TLS; they
	// remember which.
	lenient, lenientSlow http.RoundTripper
}

// transportKey is a host with what a request may change of its configuration.
type transportKey struct {
	host     string
	insecure bool
}

// transport returns the connections to a host, shared by all builds.
func (c *Client) transport(host string, hostCfg HostConfig) (*transports, error) {
	key := transportKey{host, hostCfg.Insecure}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[key]; t != nil {
		return t, nil
	}
	cfg, err := hostCfg.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	base := docker.DefaultHTTPTransport(cfg)
	// Many registries and proxies in front of them handle many streams of one connection worse
	// than many connections.
	base.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	base.MaxIdleConns = 0
	base.MaxIdleConnsPerHost = 2 * c.cfg.MaxConcurrency
	base.ResponseHeaderTimeout = stallTime
	base.DisableCompression = true // layers are resumed by their offset as they are
	// The answer to an upload comes when the registry has stored it, and that may take long.
	slow := base.Clone()
	slow.ResponseHeaderTimeout = commitTime
	t := &transports{
		base: base, slow: slow,
		lenient: docker.NewHTTPFallback(base), lenientSlow: docker.NewHTTPFallback(slow),
	}
	c.transports[key] = t
	return t, nil
}

// registry returns the transport of registry requests.
func (t *transports) registry(fallback, mirror bool) http.RoundTripper {
	next := http.RoundTripper(t.base)
	if fallback {
		next = t.lenient
	}
	return identity{limitDocuments{retry{next, tries(mirror)}}}
}

// uploads returns the transport of requests with large bodies. It repeats none.
func (t *transports) uploads(fallback bool) http.RoundTripper {
	if fallback {
		return t.lenientSlow
	}
	return t.slow
}

// token returns the transport of requests to authorization servers.
func (t *transports) token() http.RoundTripper {
	return limitBody{retry{t.base, attempts}, maxTokenSize}
}

// identity asks for bodies as they are stored: an offset into an encoded one would be another.
type identity struct{ next http.RoundTripper }

func (i identity) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Accept-Encoding") != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Accept-Encoding", "identity")
	}
	return i.next.RoundTrip(req)
}

// limitBody cuts bodies off.
type limitBody struct {
	next http.RoundTripper
	max  int64
}

func (l limitBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil {
		resp.Body = &limitedBody{ReadCloser: resp.Body, url: redactURL(req.URL), left: l.max}
	}
	return resp, err
}

// limitDocuments cuts the bodies of manifests off: they are read while their size is not known.
type limitDocuments struct{ next http.RoundTripper }

func (l limitDocuments) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.Contains(req.URL.Path, "/manifests/") || strings.Contains(req.URL.Path, "/referrers/") {
		return limitBody{l.next, docker.MaxManifestSize}.RoundTrip(req)
	}
	return l.next.RoundTrip(req)
}

type limitedBody struct {
	io.ReadCloser
	url  string
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, &SizeError{Object: b.url}
	}
	return n, err
}

// retry repeats requests that failed for a reason that may pass. What it gives up on is an error
// even where there was a response, because its caller would repeat those without a wait.
type retry struct {
	next http.RoundTripper
	// tries is how often a request is made, 1 for once.
	tries int
}

func (r retry) RoundTrip(req *http.Request) (*http.Response, error) {
	for n := 1; ; n++ {
		resp, err := r.next.RoundTrip(req)
		wait, again := verdict(req, resp, err, n)
		if !again {
			return resp, err
		}
		if n >= r.tries || wait > r.longest() || !rewindable(req) {
			return nil, giveUp(resp, err, n)
		}
		if resp != nil {
			drain(resp.Body)
		}
		if err := sleep(req, wait); err != nil {
			return nil, err
		}
		if req, err = rewind(req); err != nil {
			return nil, err
		}
	}
}

// longest is how long a registry may ask to wait. Where another host can be asked, that is better.
func (r retry) longest() time.Duration {
	if r.tries < attempts {
		return time.Second
	}
	return maxWait
}

// verdict says whether attempt n may be repeated, and after what time.
func verdict(req *http.Request, resp *http.Response, err error, n int) (time.Duration, bool) {
	if req.Context().Err() != nil {
		return 0, false
	}
	wait := backoff(n)
	if err != nil {
		// A server that was silent for a whole minute is asked once more, not four times.
		return wait, idempotent(req.Method) && passing(err) && (n == 1 || !timedOut(err))
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return max(wait, retryAfter(resp.Header.Get("Retry-After"), time.Now())), true
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return wait, idempotent(req.Method)
	}
	return 0, false
}

// backoff is the wait after attempt n: twice as long each time, and a little different for each
// who waits.
func backoff(n int) time.Duration {
	wait := firstWait << (n - 1)
	return wait + time.Duration((rand.Float64()-0.5)/2*float64(wait))
}

func idempotent(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPut
}

// passing reports whether a failed exchange may work the next time. A refused connection or an
// unknown host will not, within the time that a user waits for an answer.
func passing(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.Contains(err.Error(), "server closed idle connection") ||
		timedOut(err) && !errors.Is(err, syscall.ETIMEDOUT) && !dialing(err)
}

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func dialing(err error) bool { return strings.Contains(err.Error(), "dial tcp") }

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if sec, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(sec) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	return 0
}

// giveUp returns the error of the last of n attempts.
func giveUp(resp *http.Response, err error, n int) error {
	if err != nil {
		if n == 1 {
			return err
		}
		// The causes that containerd would retry once more are hidden from it.
		return fmt.Errorf("%s (%d attempts)", err.Error(), n)
	}
	defer drain(resp.Body)
	return &StatusError{
		Status: resp.Status, Code: resp.StatusCode, Attempts: n, Message: readComplaint(resp.Body).message,
	}
}

func rewindable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

func rewind(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	again.Body = body
	return again, nil
}

func sleep(req *http.Request, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-req.Context().Done():
		return req.Context().Err()
	}
}

// drain lets the connection of a short answer be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}
