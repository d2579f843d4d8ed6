//go:build linux

package http

import (
	"crypto/sha512"
	"errors"
	"fmt"
	nethttp "net/http"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source"
)

func TestAnUnchangedFileIsNotFetchedAgain(t *testing.T) {
	gone := errors.New("no head")
	for name, c := range map[string]struct {
		handle nethttp.HandlerFunc
		want   []string
	}{
		"by its tag":           {serve("v1", `"t"`), []string{"HEAD"}},
		"by a weak tag":        {serve("v1", `W/"t"`), []string{"HEAD"}},
		"by its time and size": {serve("v1", ""), []string{"HEAD"}},
		"by its tag where requests without a body are not served": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodHead {
				nethttp.Error(w, gone.Error(), nethttp.StatusMethodNotAllowed)
				return
			}
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD", "GET"}},
		"by the only tag that was named": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Header.Get("If-None-Match") == `"t"` {
				w.WriteHeader(nethttp.StatusNotModified)
				return
			}
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD"}},
		"by the tag of the answer": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			r.Header.Del("If-None-Match")
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, c.handle)
			b := newBench(t, w)
			first, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			require.Equal(t, []string{"GET"}, w.take())
			second, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			require.Equal(t, c.want, w.take())
			require.Equal(t, first, second)
		})
	}
}

func TestAChangedFileIsFetchedAgain(t *testing.T) {
	for name, c := range map[string]struct{ before, after nethttp.HandlerFunc }{
		"with another tag":                       {serve("v1", `"1"`), serve("v2", `"2"`)},
		"without tags and times":                 {plain("v1"), plain("v2")},
		"changed just now":                       {fresh("v1"), fresh("v2")},
		"of another size":                        {serve("v1", ""), serve("version 2", "")},
		"with a confirmation nobody understands": {serve("v1", ""), unmodified("v2")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, c.before)
			b := newBench(t, w)
			first, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			w.set(c.after)
			second, err := b.get(w.URL+"/f", nil)
			if name == "with a confirmation nobody understands" {
				require.EqualError(t, err, "invalid response status 304")
				return
			}
			require.NoError(t, err)
			require.Equal(t, "v1", first.content)
			require.NotEqual(t, "v1", second.content)
			require.NotEqual(t, first.key, second.key)
		})
	}
}

func TestABuildSeesOneContentThroughout(t *testing.T) {
	w := newWeb(t, plain("v1"))
	b := newBench(t, w)
	memo := &source.Memo{}
	first, err := b.fetch(b.instance(w.URL+"/f", nil, memo))
	require.NoError(t, err)
	w.set(plain("v2"))
	w.take()
	other, err := b.fetch(b.instance(w.URL+"/f", map[string]string{pb.AttrHTTPPerm: "0644"}, memo))
	require.NoError(t, err)
	require.Equal(t, "v1", other.content)
	require.Equal(t, os.FileMode(0o644), other.mode)
	require.NotEqual(t, first.key.Value, other.key.Value)
	require.Empty(t, w.take(), "the server is asked once")

	i := b.instance(w.URL+"/f", nil, memo)
	_, _, err = i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, b.src.cfg.Cache.Drop(t.Context(), first.id, other.id))
	_, err = i.Fetch(t.Context())
	var mismatch *MismatchError
	require.ErrorAs(t, err, &mismatch, "a file that moved on is not taken for the one of the key")
	w.set(plain("v1"))
	_, err = b.fetch(i)
	require.NoError(t, err)
}

func TestAChecksumIsTheKey(t *testing.T) {
	w := newWeb(t, plain("hello"))
	b := newBench(t, w)
	attrs := map[string]string{pb.AttrHTTPChecksum: digest.FromString("hello").String()}
	i := b.instance(w.URL+"/f", attrs, nil)
	key, done, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, attrs[pb.AttrHTTPChecksum], key.Pin)
	require.Empty(t, w.take(), "nobody is asked for a key")
	_, err = b.fetch(i)
	require.NoError(t, err)
	require.Equal(t, []string{"GET"}, w.take())
	g, err := b.get(w.URL+"/f", attrs)
	require.NoError(t, err)
	require.Equal(t, "hello", g.content)
	require.Empty(t, w.take(), "what is here is not fetched")

	long := fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("hello")))
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: long})
	require.NoError(t, err)

	other := digest.FromString("other").String()
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: other})
	require.EqualError(t, err, "digest mismatch "+attrs[pb.AttrHTTPChecksum]+": "+other)
	usage, err := b.src.cfg.Cache.DiskUsage(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, usage, 2, "what did not match is gone")
}

func TestResolveHTTP(t *testing.T) {
	w := newWeb(t, serve("hello", `"t"`))
	b := newBench(t, w)
	resolve := func(attrs map[string]string, sum *gatewaypb.ChecksumRequest) (*gatewaypb.ResolveSourceHTTPResponse, error) {
		return b.src.ResolveHTTP(t.Context(), b.instance(w.URL+"/f", attrs, nil).id, sum, source.Env{})
	}
	meta, err := resolve(nil, nil)
	require.NoError(t, err)
	require.Equal(t, digest.FromString("hello").String(), meta.GetChecksum())
	require.Equal(t, "f", meta.GetFilename())
	require.Equal(t, int64(1767225600), meta.GetLastModified().GetSeconds())
	require.Nil(t, meta.GetChecksumResponse())

	meta, err = resolve(nil, &gatewaypb.ChecksumRequest{Algo: gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA512, Suffix: []byte("++")})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("hello++"))), meta.GetChecksumResponse().GetDigest())
	require.Equal(t, []byte("++"), meta.GetChecksumResponse().GetSuffix())

	_, err = resolve(nil, &gatewaypb.ChecksumRequest{Suffix: make([]byte, maxSuffix+1)})
	require.Error(t, err)
	_, err = resolve(nil, &gatewaypb.ChecksumRequest{Algo: 9})
	require.Error(t, err)

	other := digest.FromString("other").String()
	_, err = resolve(map[string]string{pb.AttrHTTPChecksum: other}, nil)
	require.EqualError(t, err, fmt.Sprintf("digest mismatch for %s/f: %s (expected: %s)", w.URL, digest.FromString("hello"), other))
}
