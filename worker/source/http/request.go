//go:build linux

package http

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"time"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
)

const (
	maxRedirects = 10
	// maxHeader bounds what a server may say before the file, in bytes.
	maxHeader = 1 << 20

	dialTimeout      = 30 * time.Second
	handshakeTimeout = 30 * time.Second
	idleTimeout      = 90 * time.Second
)

func newTransport() *nethttp.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &nethttp.Transport{
		Proxy:                  nethttp.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    handshakeTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      true,
	}
}

// client asks the server of one url.
type client struct {
	http  *nethttp.Client
	id    *Identifier
	stall time.Duration
	// header is what every request carries.
	header nethttp.Header
}

// client returns the client of the url, with the credentials that the build has for it.
func (i *instance) client() *client {
	h := nethttp.Header{}
	h.Set("User-Agent", cmp.Or(i.id.UserAgent, i.src.cfg.UserAgent, "buildkit"))
	if i.id.Accept != "" {
		h.Set("Accept", i.id.Accept)
	}
	if i.auth != "" {
		h.Set("Authorization", i.auth)
	}
	return &client{
		http:   &nethttp.Client{Transport: i.src.cfg.Transport, CheckRedirect: checkRedirect},
		id:     i.id,
		stall:  i.src.cfg.Stall,
		header: h,
	}
}

// authorize finds the credentials that the build has for the url, if it did not before.
func (i *instance) authorize(ctx context.Context) (err error) {
	if i.authorized || i.id.upload() {
		return nil
	}
	i.auth, err = i.authorization(ctx)
	i.authorized = err == nil
	return err
}

// authorization returns the header Authorization: that of the secret that the op names, or of one
// that is named after the host.
func (i *instance) authorization(ctx context.Context) (string, error) {
	if name := i.id.AuthSecret; name != "" {
		v, err := secrets.Get(ctx, i.src.cfg.Sessions, i.env.Sessions, name)
		if err != nil {
			return "", secretError(name, err)
		}
		i.asked = []string{v.Session}
		return string(v.Data), nil
	}
	host := i.id.URL.Hostname()
	header, asked, err := i.optionalSecret(ctx, "HTTP_AUTH_HEADER_"+host)
	if err != nil {
		return "", err
	}
	i.asked = asked
	token, asked, err := i.optionalSecret(ctx, "HTTP_AUTH_TOKEN_"+host)
	if err != nil {
		return "", err
	}
	if token != "" {
		i.asked = asked
		return "Bearer " + token, nil
	}
	return header, nil
}

func (i *instance) optionalSecret(ctx context.Context, name string) (value string, asked []string, err error) {
	value, asked, err = secrets.Optional(ctx, i.src.cfg.Sessions, i.env.Sessions, name)
	return value, asked, secretError(name, err)
}

func secretError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("failed to retrieve HTTP auth secret %s: %w", name, err)
}

// judge says whose fault a status is: that of those who had the credentials, or none, if these do not
// do. Others are asked then, if it is fetched once more.
func (i *instance) judge(code int) error {
	err := checkStatus(code)
	if code != nethttp.StatusUnauthorized && code != nethttp.StatusForbidden {
		return err
	}
	i.authorized = false
	return session.BlameAll(i.asked, err)
}

// checkRedirect bounds redirects and keeps from other servers what the first one is told.
func checkRedirect(req *nethttp.Request, via []*nethttp.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if isUpload(req.URL) {
		return errors.New("a server redirects to a stream of the client")
	}
	req.Header.Del("Referer") // its query may be a secret
	first := via[0].URL
	if req.URL.Host != first.Host || first.Scheme == SchemeTLS && req.URL.Scheme != SchemeTLS {
		req.Header.Del("Authorization")
	}
	return nil
}

// do sends a request. The caller closes the body, whose reads fail when the server falls silent.
func (c *client) do(ctx context.Context, method string, header nethttp.Header) (*nethttp.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := nethttp.NewRequestWithContext(ctx, method, c.id.URL.String(), nethttp.NoBody)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("invalid http url %q: %w", redacted(c.id.URL), withoutURL(err))
	}
	for _, h := range []nethttp.Header{c.header, header} {
		for key, values := range h {
			req.Header[key] = values
		}
	}
	w := &watchdog{
		stall:  c.stall,
		timer:  time.AfterFunc(c.stall, func() { cancel(stalledError{c.stall}) }),
		cancel: cancel,
		cause:  func() error { return context.Cause(ctx) },
	}
	resp, err := c.http.Do(req)
	if err != nil {
		err = c.explain(ctx, method, err)
		w.stop()
		return nil, err
	}
	w.body, w.explain = resp.Body, func(err error) error { return c.explain(ctx, method, err) }
	w.timer.Reset(c.stall)
	resp.Body = w
	return resp, nil
}

// explain names the url in an error, without credentials.
func (c *client) explain(ctx context.Context, method string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	op := method[:1] + string(lower(method[1:]))
	return &url.Error{Op: op, URL: redacted(c.id.URL), Err: withoutURL(err)}
}

func lower(s string) []byte {
	b := []byte(s)
	for i := range b {
		b[i] |= 'a' - 'A'
	}
	return b
}

// withoutURL returns what is wrong with a url, without the url.
func withoutURL(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// stalledError says that a server was silent for too long.
type stalledError struct{ after time.Duration }

func (e stalledError) Error() string { return fmt.Sprintf("the server sent nothing for %s", e.after) }

// Timeout returns true.
func (e stalledError) Timeout() bool { return true }

// watchdog is a body that is given up when nothing comes for a while.
type watchdog struct {
	body    io.ReadCloser
	stall   time.Duration
	timer   *time.Timer
	cancel  context.CancelCauseFunc
	explain func(error) error
	// cause says why the request was given up; nil if it was not.
	cause func() error
}

func (w *watchdog) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	w.timer.Reset(w.stall)
	// A server that is left may end what it sends as if that were all, and be heard yet.
	if err != nil && (err != io.EOF || w.cause() != nil) {
		err = w.explain(err)
	}
	return n, err
}

func (w *watchdog) Close() error {
	err := w.body.Close()
	w.stop()
	return err
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}
