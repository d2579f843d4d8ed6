package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// script answers requests with its entries, one after the other; the last one stays.
type script struct {
	answers []any // an int is a status, a *http.Response itself, an error itself
	n       int
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	a := s.answers[min(s.n, len(s.answers)-1)]
	s.n++
	switch a := a.(type) {
	case error:
		return nil, a
	case *http.Response:
		return a, nil
	case int:
		rec := httptest.NewRecorder()
		rec.WriteHeader(a)
		_, _ = rec.WriteString(`{"errors":[{"message":"come\u0007 back"}]}`)
		return rec.Result(), nil
	}
	panic("script")
}

func later(status int, after string) *http.Response {
	rec := httptest.NewRecorder()
	rec.Header().Set("Retry-After", after)
	rec.WriteHeader(status)
	return rec.Result()
}

func TestRetry(t *testing.T) {
	for name, tc := range map[string]struct {
		method   string
		answers  []any
		attempts int
		err      string
		min, max time.Duration
	}{
		"what works is asked once":                   {answers: []any{200}, attempts: 1},
		"what is not found is asked once":            {answers: []any{404}, attempts: 1},
		"a server error passes":                      {answers: []any{500, 502, 200}, attempts: 3, min: 400 * time.Millisecond, max: time.Second},
		"too many requests wait as told":             {answers: []any{later(429, "7"), 200}, attempts: 2, min: 7 * time.Second, max: 8 * time.Second},   //nolint:bodyclose // no body was made
		"a wait beyond reason is an error at once":   {answers: []any{later(429, "3600")}, attempts: 1, err: "unexpected status 429 Too Many Requests"}, //nolint:bodyclose // as above
		"a connection that was reset is tried again": {answers: []any{syscall.ECONNRESET, io.EOF, 200}, attempts: 3, max: time.Second},
		"a connection that is refused is not":        {answers: []any{syscall.ECONNREFUSED}, attempts: 1, err: "connection refused"},
		"a reset upload of unknown effect is not":    {method: http.MethodPost, answers: []any{io.ErrUnexpectedEOF}, attempts: 1, err: "unexpected EOF"},
		"a refused upload is":                        {method: http.MethodPost, answers: []any{429, 202}, attempts: 2, max: time.Second},
		"it gives up with the words of the registry": {
			answers: []any{503}, attempts: 5, min: 2 * time.Second, max: 4 * time.Second,
			err: "unexpected status 503 Service Unavailable (5 attempts): come  back",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				method := tc.method
				if method == "" {
					method = http.MethodGet
				}
				req, err := http.NewRequestWithContext(t.Context(), method, "http://registry.test/v2/", http.NoBody)
				require.NoError(t, err)
				s, start := &script{answers: tc.answers}, time.Now()
				resp, err := retry{s, attempts}.RoundTrip(req)
				if tc.err == "" {
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
				} else {
					require.ErrorContains(t, err, tc.err)
					require.NotErrorIs(t, err, io.EOF)
				}
				require.Equal(t, tc.attempts, s.n)
				require.GreaterOrEqual(t, time.Since(start), tc.min)
				require.LessOrEqual(t, time.Since(start), tc.max)
			})
		})
	}
}

func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://registry.test/v2/", http.NoBody)
		require.NoError(t, err)
		resp, err := retry{&script{answers: []any{500}}, attempts}.RoundTrip(req) //nolint:bodyclose // there is no response
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Nil(t, resp)
	})
}

func TestRetryAfterReadsSecondsAndDates(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, 3*time.Second, retryAfter("3", now))
	require.Equal(t, time.Minute, retryAfter("Thu, 01 Jan 2026 00:01:00 GMT", now))
	require.Zero(t, retryAfter("", now))
	require.Zero(t, retryAfter("-3", now))
	require.Zero(t, retryAfter("soon", now))
}

// chunks is a transfer that gives its text and then err.
type chunks struct {
	io.Reader
	err error
}

func (c chunks) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if errors.Is(err, io.EOF) && c.err != nil {
		err = c.err
	}
	return n, err
}
func (chunks) Close() error { return nil }

// silent is a transfer that waits for its context.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, s.ctx.Err() }
func (silent) Close() error               { return nil }

func TestReader(t *testing.T) {
	const text = "0123456789"
	// Each case gives, per connection, how many bytes come and how it ends.
	type conn struct {
		n   int
		err error
	}
	stall := errors.New("stall")
	for name, tc := range map[string]struct {
		conns []conn
		size  int64
		want  string
		err   string
	}{
		"one connection":                      {conns: []conn{{10, nil}}, size: 10, want: text},
		"connections that break":              {conns: []conn{{3, syscall.ECONNRESET}, {0, io.ErrUnexpectedEOF}, {4, io.ErrUnexpectedEOF}, {3, nil}}, size: 10, want: text},
		"an end that comes early":             {conns: []conn{{3, nil}, {7, nil}}, size: 10, want: text},
		"a connection that falls silent":      {conns: []conn{{3, stall}, {7, nil}}, size: 10, want: text},
		"too many bytes":                      {conns: []conn{{10, nil}}, size: 8, err: "is too large (9 > 8 bytes)"},
		"no end after the last byte":          {conns: []conn{{10, stall}}, size: 10, want: text},
		"no progress in five connections":     {conns: []conn{{0, io.ErrUnexpectedEOF}}, size: 10, err: "transfer broken at 0 of 10 bytes: unexpected EOF"},
		"silence in five connections":         {conns: []conn{{0, stall}}, size: 10, err: "registry sends no data"},
		"an error that does not pass is kept": {conns: []conn{{2, errors.New("boom")}}, size: 10, err: "boom"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				r := &reader{name: "r", size: tc.size, stall: time.Minute}
				r.open = func(ctx context.Context, offset int64) (io.ReadCloser, error) {
					c := tc.conns[min(n, len(tc.conns)-1)]
					n++
					part := strings.NewReader(text[offset : offset+int64(c.n)])
					if errors.Is(c.err, stall) {
						return struct {
							io.Reader
							io.Closer
						}{io.MultiReader(part, silent{ctx}), silent{ctx}}, nil
					}
					return chunks{part, c.err}, nil
				}
				require.NoError(t, r.start(t.Context()))
				data, err := io.ReadAll(r)
				if tc.err != "" {
					require.ErrorContains(t, err, tc.err)
				} else {
					require.NoError(t, err)
					require.Equal(t, tc.want, string(data))
				}
				require.NoError(t, r.Close())
			})
		})
	}
}
