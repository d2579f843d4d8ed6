//go:build linux

package http

import (
	"context"
	"encoding/json"
	"errors"
	nethttp "net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

const (
	// valueMeta is under which records are found by what was asked for.
	valueMeta = "http.meta"
	// maxKnown is how many versions of one url a server is asked about.
	maxKnown = 8
	// strongAge is how much older than an answer a time of last change must be to tell versions
	// apart: a file may change twice within the second that the time counts in, and the clocks of
	// a site need not agree (RFC 7232, 2.2.2).
	strongAge = time.Minute
)

// version is what is known of a file that was fetched, stored beside its record.
type version struct {
	// ID is the cache record; it is not stored.
	ID string `json:"-"`
	// Digest is that of the content; Checksum another one that was asked for.
	Digest   digest.Digest `json:"digest"`
	Checksum digest.Digest `json:"checksum,omitempty"`
	// File is how the file was put into its tree, with the name it has there.
	File tree.File `json:"file"`
	// ETag is the entity tag, without the mark of a weak one.
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
	// Strong tells that LastModified can stand for the content.
	Strong bool `json:"strong,omitempty"`
	// Size is what the server says; -1 if it says nothing.
	Size int64 `json:"size"`
	// Disposition is the name of the file that the server gives.
	Disposition string `json:"disposition,omitempty"`
}

// newVersion reads the headers of an answer.
func newVersion(resp *nethttp.Response) *version {
	v := &version{
		ETag:         weaken(resp.Header.Get("ETag")),
		LastModified: resp.Header.Get("Last-Modified"),
		Size:         resp.ContentLength,
		Disposition:  dispositionName(resp.Header.Get("Content-Disposition")),
	}
	if resp.Uncompressed {
		v.Size = -1
	}
	changed, err := nethttp.ParseTime(v.LastModified)
	answered, derr := nethttp.ParseTime(resp.Header.Get("Date"))
	v.Strong = err == nil && derr == nil && answered.Sub(changed) >= strongAge
	return v
}

// weaken returns an entity tag without the mark of a weak one.
func weaken(etag string) string { return strings.TrimPrefix(etag, "W/") }

// has tells whether the content has a digest.
func (v *version) has(dgst digest.Digest) bool { return v.Digest == dgst || v.Checksum == dgst }

// modified returns the time of the file: the beginning of 1970 if the server tells none.
func (v *version) modified() time.Time {
	t, err := nethttp.ParseTime(v.LastModified)
	if err != nil || t.Before(time.Unix(0, 0)) {
		return time.Unix(0, 0)
	}
	return t
}

// known returns the versions of the url whose files are here, the newest first.
func (i *instance) known(ctx context.Context) ([]*version, error) {
	var found []*version
	for _, id := range i.src.cfg.Cache.Search(valueMeta, i.content()) {
		ref, err := i.src.cfg.Cache.Get(ctx, id)
		if errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrLost) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v := &version{ID: id}
		damaged := json.Unmarshal(ref.Value(valueMeta), v)
		if err := ref.Release(ctx); err != nil {
			return nil, err
		}
		if damaged == nil && v.Digest.Validate() == nil {
			found = append(found, v)
		}
	}
	return found, nil
}

// note stores beside a record what it holds.
func (i *instance) note(ref *cache.Ref, v *version) error {
	if i.id.upload() {
		return nil // nobody can ask for it again
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return ref.SetValue(valueMeta, data, i.content())
}

// latest returns the first of the versions for each content, at most maxKnown.
func latest(known []*version) []*version {
	var out []*version
	for _, v := range known {
		if len(out) < maxKnown && !slices.ContainsFunc(out, func(o *version) bool { return o.Digest == v.Digest }) {
			out = append(out, v)
		}
	}
	return out
}
