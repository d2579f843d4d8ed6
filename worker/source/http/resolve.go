//go:build linux

package http

import (
	"context"
	"mime"
	nethttp "net/http"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/worker/source"
)

// instance is a url in one build.
type instance struct {
	src *Source
	id  *Identifier
	env source.Env
	// auth is the header Authorization, once authorized is true; it may be empty.
	auth       string
	authorized bool
	// asked are the sessions that auth is of, or that have nothing for the url.
	asked []string
	// found is what the url stands for, nil until it was asked.
	found *version
}

// Key returns the key of the content: what the op says that it is, or what the server has. Where
// credentials are used, the server is asked in any case whether they do.
func (i *instance) Key(ctx context.Context, _ int) (source.Key, bool, error) {
	if err := i.authorize(ctx); err != nil {
		return source.Key{}, false, err
	}
	c := i.id.Checksum
	if c != "" && i.auth == "" {
		return source.Key{Value: i.id.promisedKey(), Pin: c.String()}, true, nil
	}
	v, err := i.resolve(ctx)
	if err != nil {
		return source.Key{}, false, err
	}
	if c != "" && !v.has(c) {
		return source.Key{}, false, &MismatchError{Got: v.Digest, Want: c}
	}
	return source.Key{
		Value: i.id.key(v.Digest, i.id.name(v.Disposition), v.LastModified),
		Pin:   v.Digest.String(),
	}, true, nil
}

// resolve finds out what the url stands for, once in a build.
func (i *instance) resolve(ctx context.Context) (*version, error) {
	if i.found != nil {
		return i.found, nil
	}
	if err := i.authorize(ctx); err != nil {
		return nil, err
	}
	v, err := source.Once(ctx, i.env.Memo, "http "+i.content(), i.ask)
	if err != nil {
		return nil, err
	}
	i.found = v
	return v, nil
}

// content names what the server is asked for.
func (i *instance) content() string { return i.id.content(i.auth != "") }

// ask returns what the server has now, which is here afterwards.
func (i *instance) ask(ctx context.Context) (*version, error) {
	if i.id.upload() {
		return i.receive(ctx)
	}
	known, err := i.known(ctx)
	if err != nil {
		return nil, err
	}
	known = latest(known)
	c := i.client()
	if v := c.unchanged(ctx, known); v != nil {
		return v, nil
	}
	resp, err := c.do(ctx, nethttp.MethodGet, ifNoneMatch(known))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if v := confirmed(resp, known); v != nil {
		return v, nil
	}
	if err := i.judge(resp.StatusCode); err != nil {
		return nil, err
	}
	return i.save(ctx, newVersion(resp), resp.Body)
}

// unchanged asks the server with a request that can't bring the file whether it has one of the
// versions; nil if it has not, or does not say.
func (c *client) unchanged(ctx context.Context, known []*version) *version {
	if !slices.ContainsFunc(known, func(v *version) bool { return v.ETag != "" || v.Strong && v.Size >= 0 }) {
		return nil
	}
	header := ifNoneMatch(known)
	// As a file is fetched: servers give compressed forms tags of their own.
	header.Set("Accept-Encoding", "gzip")
	resp, err := c.do(ctx, nethttp.MethodHead, header)
	if err != nil {
		return nil // the request for the file will say what is wrong
	}
	defer resp.Body.Close()
	if v := confirmed(resp, known); v != nil {
		return v
	}
	if checkStatus(resp.StatusCode) != nil {
		return nil
	}
	now := newVersion(resp)
	for _, v := range known {
		if now.ETag != "" && now.ETag == v.ETag {
			return v
		}
		// An equal time is asked for, not one that is not later: files also get older. Tags that
		// differ say more than times.
		if now.ETag == "" && v.ETag == "" && v.Strong && now.LastModified == v.LastModified && now.Size >= 0 && now.Size == v.Size {
			return v
		}
	}
	return nil
}

// confirmed returns the version that an answer says is still right; nil if it says no such thing.
func confirmed(resp *nethttp.Response, known []*version) *version {
	if resp.StatusCode != nethttp.StatusNotModified {
		return nil
	}
	tag := weaken(resp.Header.Get("ETag"))
	tagged := slices.DeleteFunc(slices.Clone(known), func(v *version) bool { return v.ETag == "" })
	for _, v := range tagged {
		if v.ETag == tag {
			return v
		}
	}
	// There is no doubt which one is meant if only one was named.
	if tag == "" && len(tagged) == 1 {
		return tagged[0]
	}
	return nil
}

// ifNoneMatch names the versions to the server.
func ifNoneMatch(known []*version) nethttp.Header {
	h := nethttp.Header{}
	var tags []string
	for _, v := range known {
		if v.ETag != "" {
			tags = append(tags, v.ETag)
		}
	}
	if len(tags) > 0 {
		h.Set("If-None-Match", strings.Join(tags, ", "))
	}
	return h
}

// dispositionName returns the name of a file in a header Content-Disposition, empty if there is
// none.
func dispositionName(header string) string {
	if header == "" {
		return ""
	}
	_, params, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return params["filename"]
}
