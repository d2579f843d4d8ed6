//go:build linux

package git

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/api/giturl"
)

const (
	// maxMoves bounds redirects; moveTimeout the time that one may take.
	maxMoves    = 5
	moveTimeout = time.Minute
	// discovery is what git asks a remote first (gitprotocol-http).
	discovery = "/info/refs"
)

// follow returns where a remote is now that has been renamed on its host, empty if it has not. With
// credentials git follows no redirect, as it would take them along to any host.
func (i *instance) follow(ctx context.Context, failure error) string {
	var failed *CommandError
	if i.auth == nil || !errors.As(failure, &failed) || !strings.Contains(failed.Stderr, "returned error: 30") {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	remote := i.id.Remote.Remote()
	for range maxMoves {
		next, ok := i.nextMove(ctx, client, remote)
		if !ok {
			return ""
		}
		if next == "" {
			return remote
		}
		remote = next
	}
	return ""
}

// nextMove returns where a remote is redirected to, empty if it is there; false if it can't be
// followed.
func (i *instance) nextMove(ctx context.Context, client *http.Client, remote string) (string, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(remote, "/")+discovery+"?service=git-upload-pack", http.NoBody)
	if err != nil {
		return "", false
	}
	_, value, _ := strings.Cut(i.auth.value, ": ")
	req.Header.Set("Authorization", value)
	resp, err := client.Do(req)
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return "", true
	}
	to, err := resp.Location()
	if err != nil || to.Scheme != req.URL.Scheme || to.Host != req.URL.Host {
		return "", false
	}
	path, ok := strings.CutSuffix(to.EscapedPath(), discovery)
	next, err := giturl.Parse((&url.URL{Scheme: to.Scheme, Host: to.Host}).String() + path)
	if !ok || err != nil {
		return "", false
	}
	return next.Remote(), true
}
