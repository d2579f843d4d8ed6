package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// StatusError says that a registry kept answering with a status that asks to come back later.
type StatusError struct {
	Status   string
	Code     int
	Attempts int
	// Message is what the registry said about it; often empty.
	Message string
}

// Error gives the answer. The request is named by what wraps the error.
func (e *StatusError) Error() string {
	s := "unexpected status " + e.Status
	if e.Attempts > 1 {
		s += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// DigestError says that bytes are not those that were asked for.
type DigestError struct {
	Object    string
	Got, Want digest.Digest
}

// Error names both digests.
func (e *DigestError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("%s: unexpected digest, expected %s", e.Object, e.Want)
	}
	return fmt.Sprintf("%s: unexpected digest %s, expected %s", e.Object, e.Got, e.Want)
}

// Is makes it a blob.ErrWrong.
func (e *DigestError) Is(target error) bool { return target == blob.ErrWrong }

// SizeError says that an object is larger than its descriptor says or than is allowed.
type SizeError struct {
	Object string
	// Size and Max are in bytes. Size is 0 if the object has no known end.
	Size, Max int64
}

// Error names the object and, where known, the sizes.
func (e *SizeError) Error() string {
	if e.Size > 0 {
		return fmt.Sprintf("%s is too large (%d > %d bytes)", e.Object, e.Size, e.Max)
	}
	return e.Object + " is too large"
}

// Is makes it a blob.ErrWrong.
func (e *SizeError) Is(target error) bool { return target == blob.ErrWrong }

// IsDenied reports whether err says that the credentials of the requester are missing or do not
// suffice. Another requester may have better ones.
func IsDenied(err error) bool {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return true
	}
	var status remoteserrors.ErrUnexpectedStatus
	return errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden)
}

// complaint is what a registry says about an error.
type complaint struct {
	// codes are those of the distribution specification.
	codes   []string
	message string
}

// readComplaint reads the JSON of the distribution specification.
func readComplaint(body io.Reader) (c complaint) {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(body, 16<<10)).Decode(&doc) != nil {
		return c
	}
	var all []string
	for _, e := range doc.Errors {
		c.codes = append(c.codes, e.Code)
		if e.Message != "" {
			all = append(all, printable(e.Message))
		}
	}
	c.message = strings.Join(all, ", ")
	return c
}

// printable makes a foreign text safe to show.
func printable(s string) string {
	if len(s) > 512 {
		s = s[:512] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s)
}

// redactURL returns u without user and with the values of its query hidden: storage behind a
// registry is reached by signed URLs.
func redactURL(u *url.URL) string {
	c := *u
	c.User = nil
	if c.RawQuery != "" {
		q := c.Query()
		for k := range q {
			if k != "ns" {
				q.Set(k, "REDACTED")
			}
		}
		c.RawQuery = q.Encode()
	}
	return c.String()
}

// redact hides the queries of the URLs that err prints.
func redact(err error) error {
	if err == nil {
		return nil
	}
	msg := err.Error()
	var ue *url.Error
	if errors.As(err, &ue) {
		msg = strings.ReplaceAll(msg, ue.URL, redactText(ue.URL))
	}
	var status remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		msg = strings.ReplaceAll(msg, status.RequestURL, redactText(status.RequestURL))
	}
	if msg == err.Error() {
		return err
	}
	return &redactedError{msg: msg, err: err}
}

// redactText is redactURL of a text that should be a URL.
func redactText(s string) string {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return s
	case err != nil:
		return "REDACTED"
	case u.RawQuery == "" && u.User == nil:
		return s
	}
	return redactURL(u)
}

type redactedError struct {
	msg string
	err error
}

func (e *redactedError) Error() string { return e.msg }
func (e *redactedError) Unwrap() error { return e.err }

// As gives out typed errors that print as this one does.
func (e *redactedError) As(target any) bool {
	status, ok := target.(*remoteserrors.ErrUnexpectedStatus)
	if !ok || !errors.As(e.err, status) {
		return false
	}
	status.RequestURL = redactText(status.RequestURL)
	return true
}
