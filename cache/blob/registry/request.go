package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// call is a request to a registry, as often as its authorization takes.
type call struct {
	method string
	// url is on the host, or where the host sent the requester.
	url    *url.URL
	header http.Header
	// body, if not nil, gives the body anew each time; size is its length in bytes.
	body func() (io.ReadCloser, error)
	size int64
	// client is the host's if nil.
	client *http.Client
	// whole asks for the body of a good answer.
	whole bool
}

// url returns the address of an object of the repository path.
func (h *host) url(path, object string) *url.URL {
	return &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path + "/" + path + "/" + object}
}

// answer is what the host said to a call.
type answer struct {
	code   int
	header http.Header
	// url is what was asked in the end, after redirects.
	url *url.URL
	// body is there if the call wanted it and the answer was good.
	body []byte
	// err is the error that the answer is where it is unexpected.
	err error
	// missing tells that something is not there which a manifest refers to.
	missing bool
}

// do makes a call. A status of 401 that credentials do not change is an error that IsDenied;
// other statuses are the caller's business.
func (h *host) do(ctx context.Context, base http.Header, c call) (*answer, error) {
	ctx = logged(ctx)
	client := c.client
	if client == nil {
		client = h.Client
	}
	var responses []*http.Response
	for {
		req, err := c.request(ctx, base)
		if err != nil {
			return nil, err
		}
		if err := h.auth.Authorize(ctx, req); err != nil {
			err = fmt.Errorf("failed to authorize: %w", err)
			if IsDenied(err) {
				err = &deniedError{err}
			}
			return nil, err
		}
		resp, err := client.Do(req) //nolint:bodyclose // read closes it
		if err != nil {
			return nil, fmt.Errorf("failed to do request: %w", err)
		}
		a, err := read(resp, c.whole)
		if err != nil || a.code != http.StatusUnauthorized {
			return a, err
		}
		responses = append(responses, resp) //nolint:bodyclose // as above
		err = h.auth.AddResponses(ctx, responses)
		if err == nil && len(responses) >= attempts {
			err = docker.ErrInvalidAuthorization
		}
		if err != nil {
			return nil, &deniedError{err}
		}
	}
}

func (c call) request(ctx context.Context, base http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, c.url.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	for _, h := range []http.Header{base, c.header} {
		for key, values := range h {
			req.Header[key] = append([]string(nil), values...)
		}
	}
	if c.body != nil && c.size > 0 {
		if req.Body, err = c.body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = c.body, c.size
	}
	return req, nil
}

// deniedError is what docker.ErrInvalidAuthorization means for a push.
type deniedError struct{ err error }

func (e *deniedError) Error() string {
	return "push access denied, repository does not exist or may require authorization: " + e.err.Error()
}
func (e *deniedError) Unwrap() error        { return e.err }
func (e *deniedError) Is(target error) bool { return target == docker.ErrInvalidAuthorization }

// document makes a call for a document, which is not large, until it is there as a whole.
func (h *host) document(ctx context.Context, base http.Header, c call) (*answer, error) {
	c.whole = true
	for n := 1; ; n++ {
		a, err := h.do(ctx, base, c)
		if err == nil || n == attempts || ctx.Err() != nil || !passing(err) {
			return a, err
		}
		select {
		case <-time.After(backoff(n)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// read reads an answer to its end.
func read(resp *http.Response, whole bool) (*answer, error) {
	defer drain(resp.Body)
	a := &answer{code: resp.StatusCode, header: resp.Header, url: resp.Request.URL}
	if whole && a.code == http.StatusOK {
		var err error
		a.body, err = io.ReadAll(resp.Body)
		return a, err
	}
	said := readComplaint(resp.Body)
	a.missing = slices.Contains(said.codes, "MANIFEST_BLOB_UNKNOWN")
	status := remoteserrors.ErrUnexpectedStatus{
		Status: resp.Status, StatusCode: resp.StatusCode, RequestURL: a.url.String(), RequestMethod: resp.Request.Method,
	}
	a.err = status
	if said.message != "" {
		a.err = fmt.Errorf("%w: %s", status, said.message)
	}
	return a, nil
}

// stored reports whether a registry took what it was sent.
func (a *answer) stored() bool {
	switch a.code {
	case http.StatusCreated, http.StatusOK, http.StatusNoContent:
		return true
	}
	return false
}
