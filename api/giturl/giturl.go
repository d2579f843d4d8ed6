// Package giturl reads the urls of git repositories as users write them: http, https, ssh and git
// urls, and the short form of ssh, [user@]host:path. Other transports of git reach files of the
// machine they run on, or run commands, and are refused.
//
// A URL has no part that git or ssh could take for an option, and no control characters.
package giturl

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// The transports.
const (
	HTTP  = "http"
	HTTPS = "https"
	SSH   = "ssh"
	Git   = "git"
)

// URL is the url of a repository.
type URL struct {
	// Scheme is one of the transports.
	Scheme string
	// User and password; nil if there is none.
	User *url.Userinfo
	// Host may have a port.
	Host string
	// Path is as it was written. In the short form it is relative to the home of the user unless
	// it begins with a slash.
	Path string

	short bool
}

var (
	scheme = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*)://`)
	short  = regexp.MustCompile(`^(?:([a-zA-Z0-9_.-]+)@)?([a-zA-Z0-9_.-]+|\[[0-9a-fA-F:.]+\]):(.+)$`)
)

// HasScheme tells whether a text begins with a scheme.
func HasScheme(s string) bool { return scheme.MatchString(s) }

// IsShort tells whether a text has the short form of ssh, with a user.
func IsShort(s string) bool {
	m := short.FindStringSubmatch(s)
	return m != nil && m[1] != "" && !HasScheme(s)
}

// Parse reads a url without fragment and query. Errors show no credentials.
func Parse(s string) (*URL, error) {
	u, err := parse(s)
	if err != nil {
		return nil, fmt.Errorf("git remote %q: %w", Redact(s), err)
	}
	return u, nil
}

func parse(s string) (*URL, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, errors.New("control characters are not allowed")
	}
	u, err := split(s)
	if err != nil {
		return nil, err
	}
	switch {
	case u.Host == "":
		return nil, errors.New("it names no host")
	case u.short && strings.HasPrefix(u.Path, ":"):
		return nil, errors.New("helpers of remotes are not allowed")
	case isOption(u.Host), u.User != nil && isOption(u.User.Username()), u.short && isOption(u.Path):
		return nil, errors.New("a part of it begins with a dash")
	}
	return u, nil
}

// isOption tells whether a program could take an argument for an option.
func isOption(s string) bool { return strings.HasPrefix(s, "-") }

func split(s string) (*URL, error) {
	m := scheme.FindStringSubmatch(s)
	if m == nil {
		m := short.FindStringSubmatch(s)
		if m == nil {
			return nil, errors.New("it is neither a url nor of the form user@host:path")
		}
		u := &URL{Scheme: SSH, Host: m[2], Path: m[3], short: true}
		if m[1] != "" {
			u.User = url.User(m[1])
		}
		return u, nil
	}
	switch strings.ToLower(m[1]) {
	case HTTP, HTTPS, SSH, Git:
	default:
		return nil, fmt.Errorf("unsupported transport %q", m[1])
	}
	u, err := url.Parse(s)
	if err != nil {
		// The error repeats the url, which may hold a password.
		var bad *url.Error
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return nil, err
	}
	if u.Fragment != "" || u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New("unexpected fragment or query")
	}
	return &URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: u.EscapedPath()}, nil
}

// ID is the same for all transports that reach one repository: host and path.
func (u *URL) ID() string { return u.Host + path.Join("/", u.Path) }

// Hostname returns the host without port and brackets.
func (u *URL) Hostname() string { return (&url.URL{Host: u.Host}).Hostname() }

// Remote returns what git is to be told: the url without a password, and over http without a user.
func (u *URL) Remote() string {
	user := ""
	if u.Scheme == SSH && u.User != nil {
		user = u.User.Username() + "@"
		if !u.short {
			user = url.User(u.User.Username()).String() + "@"
		}
	}
	if u.short {
		return user + u.Host + ":" + u.Path
	}
	return u.Scheme + "://" + user + u.Host + u.Path
}

// String returns the url as it is shown, without secrets.
func (u *URL) String() string {
	if u.User == nil || u.Scheme == SSH {
		return u.Remote()
	}
	return u.Scheme + "://" + redacted + "@" + u.Host + u.Path
}

const redacted = "xxxxx"

// pinned is what stands behind the @ of a reference that names content by its digest.
var pinned = regexp.MustCompile(`^sha(?:256|384|512):[0-9a-f]{16}`)

// Redact takes user and password out of all urls in a text, except the user of ssh urls.
func Redact(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	var out strings.Builder
	done, next := 0, 0
	for {
		n := strings.Index(text[next:], schemeEnd)
		if n < 0 {
			return out.String() + text[done:]
		}
		from := next + n + len(schemeEnd)
		scheme := schemeBefore(text[next : next+n])
		login := loginIn(text[from:])
		if next = from; scheme == "" || login < 0 {
			continue
		}
		next += login + len("@")
		if shown, ok := redactedLogin(scheme, text[from:from+login], text[next:]); ok {
			out.WriteString(text[done:from])
			out.WriteString(shown)
			done = from + login
		}
	}
}

const schemeEnd = "://"

// schemeBefore returns the scheme that a text ends with, empty for none.
func schemeBefore(text string) string {
	begin := len(text)
	for i := len(text) - 1; i >= 0; i-- {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			begin = i
		case '0' <= c && c <= '9', c == '+', c == '.', c == '-':
		default:
			return text[begin:]
		}
	}
	return text[begin:]
}

// loginIn returns the length of what a text begins with that a url has before its host, -1 for nothing. Quotes
// and angle brackets are where urls end: text between two urls is no password.
func loginIn(text string) int {
	if end := strings.IndexAny(text, "/ \t\n\f\r\"<>"); end >= 0 {
		text = text[:end]
	}
	return strings.LastIndexByte(text, '@')
}

// redactedLogin returns what is shown of a login; false if that is all. What follows is behind its at sign.
func redactedLogin(scheme, login, what string) (string, bool) {
	user, _, password := strings.Cut(login, ":")
	switch {
	case scheme == SSH && !password, !strings.Contains(login, "@") && pinned.MatchString(what):
		return "", false
	case scheme == SSH:
		return user + ":" + redacted, true
	default:
		return redacted, true
	}
}
