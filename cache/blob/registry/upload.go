package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
)

// exists asks whether the repository has a blob.
func (p *push) exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	a, err := p.do(ctx, call{method: http.MethodHead, url: p.host.url(p.path, "blobs/"+desc.Digest.String())})
	if err != nil {
		return false, err
	}
	switch a.code {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, a.err
}

// mount asks the registry to take a blob over from another of its repositories, and reports
// whether it did. That it did not is no error: the blob is sent then.
func (p *push) mount(ctx context.Context, desc ocispec.Descriptor, from string) bool {
	u := p.host.url(p.path, "blobs/uploads/")
	u.RawQuery = url.Values{"mount": {desc.Digest.String()}, "from": {from}}.Encode()
	a, err := p.do(withScopes(tentative(ctx), pullScope(from)), call{method: http.MethodPost, url: u})
	if err != nil {
		return false
	}
	if a.code == http.StatusAccepted {
		p.cancelUpload(ctx, a)
	}
	return a.code == http.StatusCreated
}

// cancelUpload ends an upload that nobody wants, so that the registry need not keep it for days.
func (p *push) cancelUpload(ctx context.Context, begun *answer) {
	if u, own, err := p.location(begun); err == nil && own {
		_, _ = p.do(ctx, call{method: http.MethodDelete, url: u})
	}
}

// upload sends a blob that the repository does not have, anew if that fails for a reason that may
// pass: registries do not go on with an upload that broke off.
func (p *push) upload(ctx context.Context, desc ocispec.Descriptor, from content.ReaderAt) error {
	m := newMeter(p.scope, desc)
	defer m.end()
	for n := 1; ; n++ {
		err := p.uploadOnce(ctx, desc, from, m)
		wait, again := p.uploadAgain(ctx, err, n)
		if err == nil || !again {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		// It may have arrived although the answer did not.
		if there, err := p.exists(ctx, desc); err == nil && there {
			return nil
		}
	}
}

// uploadAgain says whether an upload that ended with err may be made again, and after what time.
func (p *push) uploadAgain(ctx context.Context, err error, n int) (time.Duration, bool) {
	var busy *busyError
	switch {
	case err == nil, ctx.Err() != nil, n >= attempts:
		return 0, false
	case errors.As(err, &busy):
		wait := max(backoff(n), busy.after)
		return wait, wait <= maxWait
	}
	return backoff(n), errors.Is(err, errStalled) || passing(err)
}

// busyError is an answer that may be another the next time.
type busyError struct {
	err   error
	after time.Duration
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }

func (p *push) uploadOnce(ctx context.Context, desc ocispec.Descriptor, from content.ReaderAt, m *meter) error {
	begun, err := p.do(ctx, call{method: http.MethodPost, url: p.host.url(p.path, "blobs/uploads/")})
	if err != nil {
		return err
	}
	if begun.code != http.StatusAccepted {
		return refusal(begun)
	}
	to, _, err := p.location(begun)
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("digest", desc.Digest.String())
	to.RawQuery = q.Encode()
	if p.sending != nil {
		var stop func()
		if ctx, stop = p.sending(ctx); stop != nil {
			defer stop()
		}
	}
	return p.send(ctx, to, desc, from, m)
}

// send sends the bytes of a blob. It gives up where none are taken for a time.
func (p *push) send(ctx context.Context, to *url.URL, desc ocispec.Descriptor, from content.ReaderAt, m *meter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.restart()
	a, err := p.do(ctx, call{
		method: http.MethodPut, url: to, client: p.host.uploads, size: desc.Size,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() (io.ReadCloser, error) {
			return newSentBody(from, desc.Size, stallTime, m, cancel), nil
		},
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
	if a.stored() {
		return nil
	}
	return refusal(a)
}

// refusal is the error of an answer to an upload: a busyError if the next one may be another.
func refusal(a *answer) error {
	switch a.code {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout,
		// Answers of registries that lost an upload on the way, or a part of it.
		http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable:
		return &busyError{a.err, retryAfter(a.header.Get("Retry-After"), time.Now())}
	}
	return a.err
}

// location returns where an upload goes on, and whether that is on the registry itself.
func (p *push) location(a *answer) (u *url.URL, own bool, err error) {
	to := a.header.Get("Location")
	u, err = a.url.Parse(to)
	switch {
	case to == "", err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return nil, false, fmt.Errorf("%s: no usable location of an upload", p.host.Host)
	case u.Host == p.host.Host:
		// A registry behind a proxy may not know that it is reached through TLS.
		u.Scheme = p.host.Scheme
		return u, true, nil
	case u.Scheme != "https" && !p.host.auth.lax:
		return nil, false, fmt.Errorf("%s sends an upload to the unencrypted %s", p.host.Host, u.Host)
	}
	return u, false, nil
}

// sentBody is the body of an upload. It breaks the upload off if nobody reads it.
type sentBody struct {
	io.Reader
	stall time.Duration
	timer *time.Timer
}

func newSentBody(from content.ReaderAt, size int64, stall time.Duration, m *meter, cancel func(error)) *sentBody {
	return &sentBody{
		Reader: io.TeeReader(io.NewSectionReader(from, 0, size), m),
		stall:  stall,
		timer:  time.AfterFunc(stall, func() { cancel(errStalled) }),
	}
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.timer.Stop() // from here on the registry may take its time
	}
	return n, err
}

func (b *sentBody) Close() error {
	b.timer.Stop()
	return nil
}

// meter shows how far an upload is, once it takes so long that somebody may ask. Requests that
// were given up may still count for a moment.
type meter struct {
	scope event.Scope

	mu    sync.Mutex
	st    event.Status
	next  time.Time
	shown bool
	ended bool
}

const (
	// meterDelay is how long an upload takes at least to be shown, and meterInterval how often.
	meterDelay    = time.Second
	meterInterval = 150 * time.Millisecond
)

func newMeter(scope event.Scope, desc ocispec.Descriptor) *meter {
	start := time.Now()
	return &meter{
		scope: scope, next: start.Add(meterDelay),
		st: event.Status{ID: "pushing " + desc.Digest.String(), Total: desc.Size, Started: &start},
	}
}

// Write counts p.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.Current += int64(len(p))
	if now := time.Now(); now.After(m.next) && !m.ended {
		m.next, m.shown = now.Add(meterInterval), true
		m.st.Timestamp = now
		m.scope.Status(m.st)
	}
	return len(p), nil
}

func (m *meter) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.Current = 0
}

func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	if !m.shown {
		return
	}
	now := time.Now()
	m.st.Timestamp, m.st.Completed = now, &now
	m.scope.Status(m.st)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
