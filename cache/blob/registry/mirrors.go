package registry

import (
	"context"
	"errors"
	"time"

	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// benchTime is how long a mirror that failed is not asked.
const benchTime = time.Minute

// tries is how often a request is made to a host.
func tries(mirror bool) int {
	if mirror {
		return 2 // there is another host to ask
	}
	return attempts
}

// benched reports whether a mirror failed a short time ago.
func (c *Client) benched(h *host) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.bench[h.Host]
	if ok && time.Now().After(until) {
		delete(c.bench, h.Host)
		ok = false
	}
	return ok
}

// failed notes that a mirror could not serve. One that only lacks what was asked for, or does
// not let the requester in, is asked again the next time.
func (c *Client) failed(ctx context.Context, h *host, err error) {
	if h.outside != "" {
		log.G(logged(ctx)).WithError(redact(err)).WithField("url", redactText(h.outside)).Info("foreign layer cannot be read, trying the next place")
		return
	}
	log.G(logged(ctx)).WithError(redact(err)).WithField("mirror", h.Host).Info("mirror failed, trying the next host")
	if errdefs.IsNotFound(err) || IsDenied(err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bench[h.Host] = time.Now().Add(benchTime)
}

// usable returns the hosts to ask, in order; the registry itself is always one, and the last.
func (c *Client) usable(all []*host) []*host {
	var hosts []*host
	for _, h := range all {
		if !h.mirror || !c.benched(h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// try asks the hosts of a repository until one succeeds.
func try[T any](ctx context.Context, r *Repository, ask func(*host) (T, error)) (T, error) {
	all, err := r.hosts()
	if err != nil {
		var none T
		return none, err
	}
	var failures hostErrors
	hosts := r.client.usable(all)
	for {
		v, err := ask(hosts[0])
		if err == nil {
			return v, nil
		}
		if ctx.Err() == nil && hosts[0].auth.again(err) {
			continue
		}
		err = hosts[0].auth.blame(err)
		failures.add(err)
		if len(hosts) == 1 || ctx.Err() != nil {
			return v, failures.err()
		}
		r.client.failed(ctx, hosts[0], err)
		hosts = hosts[1:]
	}
}

// hostErrors are the errors of the hosts of a registry, of the registry itself last.
type hostErrors struct{ first, last error }

func (e *hostErrors) add(err error) {
	if e.first == nil && answered(err) {
		e.first = err
	}
	e.last = err
}

// err returns what the registry itself said. If it said nothing, what a mirror said tells more
// than that there is no connection.
func (e *hostErrors) err() error {
	if e.first != nil && !answered(e.last) {
		return e.first
	}
	return e.last
}

// answered reports whether err is what a server answered, and not that none did.
func answered(err error) bool {
	var status *StatusError
	var unexpected remoteserrors.ErrUnexpectedStatus
	return errdefs.IsNotFound(err) || IsDenied(err) || errors.As(err, &status) || errors.As(err, &unexpected) ||
		isWrong(err)
}

// isWrong reports whether a server sent other bytes than those it was asked for.
func isWrong(err error) bool {
	var size *SizeError
	var digest *DigestError
	return errors.As(err, &size) || errors.As(err, &digest)
}
