package registrytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Fault is what a Proxy does to a request.
type Fault int

// The faults.
const (
	None Fault = iota
	// TooMany answers 429, with Retry-After of a second.
	TooMany
	// Broken answers 500.
	Broken
	// ResetBefore drops the connection before the registry hears of the request.
	ResetBefore
	// ResetMidway drops it when the registry has half of the request's body.
	ResetMidway
	// ResetAfter drops it when the registry has done what was asked.
	ResetAfter
	// Truncated drops it in the middle of the answer.
	Truncated
	faults
	// Hang takes half of the request's body and then nothing, until the client gives up.
	Hang
)

// Proxy stands in front of a registry, writes down what is asked, and spoils some of it.
type Proxy struct {
	// Addr is 127.0.0.1:port.
	Addr string

	mu       sync.Mutex
	requests []string
	fault    func(*http.Request) Fault
	injected int
}

// StartProxy runs a proxy in front of the registry at addr until the test ends.
func StartProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	p, stop := &Proxy{}, make(chan struct{})
	target := &url.URL{Scheme: "http", Host: addr}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // where uploads go on
		},
		ModifyResponse: spoilResponse,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		Transport:      &http.Transport{DisableCompression: true},
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch f := p.note(r); f {
		case TooMany:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case Broken:
			w.WriteHeader(http.StatusInternalServerError)
		case ResetBefore:
			panic(http.ErrAbortHandler)
		case Hang:
			_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
			select {
			case <-r.Context().Done():
			case <-stop:
			}
			panic(http.ErrAbortHandler)
		default:
			if f == ResetMidway && r.ContentLength > 0 {
				half := io.LimitReader(r.Body, r.ContentLength/2)
				r.Body = io.NopCloser(io.MultiReader(half, broken{}))
			}
			forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, f)))
		}
	}))
	t.Cleanup(func() {
		close(stop)
		s.Close()
	})
	p.Addr = strings.TrimPrefix(s.URL, "http://")
	return p
}

type faultKey struct{}

var errInjected = errors.New("injected")

// broken is the rest of a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errInjected }

func spoilResponse(resp *http.Response) error {
	f, _ := resp.Request.Context().Value(faultKey{}).(Fault)
	switch {
	case f == ResetAfter, f == ResetMidway, f == Truncated && resp.ContentLength <= 0:
		_ = resp.Body.Close()
		return errInjected
	case f == Truncated:
		half := io.LimitReader(resp.Body, resp.ContentLength/2)
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(half, broken{}), resp.Body}
	}
	return nil
}

// note writes a request down and says what becomes of it.
func (p *Proxy) note(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := r.Method + " " + r.URL.Path
	if from := r.URL.Query().Get("from"); from != "" {
		line += " from " + from
	}
	p.requests = append(p.requests, line)
	if p.fault == nil {
		return None
	}
	f := p.fault(r)
	if f != None {
		p.injected++
	}
	return f
}

// SetFault has fault decide about each request from now on, one at a time; nil leaves all alone.
func (p *Proxy) SetFault(fault func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// Requests returns the requests since it was called last, as method and path.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := slices.Clone(p.requests)
	p.requests = nil
	return requests
}

// Injected returns how many requests were spoiled so far.
func (p *Proxy) Injected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.injected
}

// Some spoils one request in n, chosen with the seed, with any of the faults.
func Some(seed uint64, n int) func(*http.Request) Fault {
	random := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // to be repeatable
	return func(*http.Request) Fault {
		if random.IntN(n) != 0 {
			return None
		}
		return Fault(1 + random.IntN(int(faults)-1))
	}
}

// String names the fault.
func (f Fault) String() string {
	names := []string{"none", "429", "500", "reset before", "reset midway", "reset after", "truncated"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprint(int(f))
}
