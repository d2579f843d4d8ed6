package registry

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"7", "Thu, 01 Jan 2026 00:01:00 GMT", "-1", "99999999999999999999", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		resp := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {value}}}
		req := &http.Request{Method: http.MethodGet}
		if wait, again := verdict(req, resp, nil, 1); !again || wait <= 0 {
			t.Error(wait, again)
		}
		_ = retryAfter(value, now)
	})
}

func FuzzErrorMessage(f *testing.F) {
	f.Add(`{"errors":[{"code":"DENIED","message":"no\u001b[31m"}]}`)
	f.Add(`{"errors":[{"message":"` + strings.Repeat("x", 2000) + `"},{}]}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, body string) {
		message := readComplaint(strings.NewReader(body)).message
		if strings.ContainsFunc(message, unicode.IsControl) {
			t.Errorf("%q", message)
		}
	})
}

func FuzzMergeScopes(f *testing.F) {
	f.Add("repository:a/b:pull repository:a/b:pull,push registry:catalog:*")
	f.Add("repository:host:5000/a:pull ::, : a:")
	f.Fuzz(func(t *testing.T, scopes string) {
		merged := mergeScopes(strings.Split(scopes, " "))
		if again := mergeScopes(merged); !slices.Equal(merged, again) {
			t.Errorf("%q becomes %q", merged, again)
		}
		if slices.ContainsFunc(merged, func(s string) bool { return s == "" || strings.ContainsAny(s, " \t") }) {
			t.Errorf("%q", merged)
		}
	})
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{"/v2/x/y/blobs/uploads/1?_state=z", "http://registry.test/x", "https://other.test/x?sig=1", "//[::", "x:y", "http:x"} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "registry.test", Path: "/v2/x/y/blobs/uploads/"}
	f.Fuzz(func(t *testing.T, location string) {
		p := &push{host: &host{auth: &authorizer{}}}
		p.host.Scheme, p.host.Host = "https", "registry.test"
		u, own, err := p.location(&answer{url: at, header: http.Header{"Location": {location}}})
		if err != nil {
			return
		}
		if u.Scheme != "https" || u.Host == "" || own != (u.Host == "registry.test") {
			t.Errorf("%q leads to %v, %v", location, u, own)
		}
	})
}

func FuzzNextPage(f *testing.F) {
	for _, s := range []string{
		`</v2/x/y/referrers/sha256:0?n=2&last=a>; rel="next"`, `<?last=a>;rel=next`, `<//other.test/>; rel=next`,
		`<a>; title="x, <b>; rel=next"; rel=prev, <c>; rel="last Next"`, `<https://u:p@registry.test/>; rel=next`, `<`, `<\x00>; rel=next`,
	} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "registry.test", Path: "/v2/x/y/referrers/sha256:0"}
	f.Fuzz(func(t *testing.T, header string) {
		u, err := nextPage(at, []string{header})
		if err == nil && u != nil && (u.Scheme != "https" || u.Host != "registry.test" || u.User != nil) {
			t.Errorf("%q leads to %v", header, u)
		}
	})
}
