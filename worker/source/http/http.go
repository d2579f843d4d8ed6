//go:build linux

// Package http is the source of http:// and https://: one file of a server, as a tree that holds
// that file alone.
//
// What a url stands for is asked once in a build and stays the same to its end. What was fetched
// is remembered beside its cache record: with the entity tag, or the time of last change and the
// size, a server can say that nothing has changed, and then nothing is fetched. A url with a
// checksum asks nobody: the checksum is the key, and the server is needed only if no record has
// that content.
//
// Streams of the client, such as a context on its standard input, have urls on the host
// buildkit-session and come through the session.
//
// The package unpacks nothing. Servers are not trusted: redirects are bounded and carry no
// credentials to another host, a server that falls silent is given up, names of files are checked.
package http

import (
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"net/url"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/upload"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

// The schemes of files of servers.
const (
	Scheme    = "http"
	SchemeTLS = "https"
)

const (
	// defaultStall is how long a server may be silent: before it answers, and between two parts
	// of what it sends. Some make what they send when they are asked.
	defaultStall = 2 * time.Minute
	// defaultName is the name of a file that neither op nor server nor url name.
	defaultName = "download"
)

// Config is what the source works with.
type Config struct {
	Cache    *cache.Manager
	Sessions *session.Manager
	// Transport is the way to servers; nil is the usual one, with the proxies of the environment.
	Transport nethttp.RoundTripper
	// UserAgent is sent unless an op has its own.
	UserAgent string
	// Stall is how long a server may be silent; 0 stands for two minutes.
	Stall time.Duration
}

// Source fetches files. It may be used concurrently.
type Source struct{ cfg Config }

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source {
	if cfg.Transport == nil {
		cfg.Transport = newTransport()
	}
	if cfg.Stall <= 0 {
		cfg.Stall = defaultStall
	}
	return &Source{cfg: cfg}
}

// Schemes returns http and https.
func (s *Source) Schemes() []string { return []string{Scheme, SchemeTLS} }

// Identifier is a parsed op.
type Identifier struct {
	URL *url.URL
	// Checksum is what the content must have; empty if any will do.
	Checksum digest.Digest
	// AuthSecret is the secret that holds the header Authorization; empty for those that the
	// host names.
	AuthSecret string
	// Accept and UserAgent are headers; empty for the usual ones.
	Accept, UserAgent string
	// Signature is what the file must be signed with; nil if nobody cares.
	Signature *Signature

	// file has no name if server or url decide.
	file tree.File
}

// Scheme returns http or https.
func (id *Identifier) Scheme() string { return id.URL.Scheme }

// String returns the url without credentials.
func (id *Identifier) String() string { return redacted(id.URL) }

// Material tells of the file.
func (id *Identifier) Material(pin string) source.Material {
	m := source.Material{Kind: source.MaterialHTTP, Name: id.String(), Digest: pin}
	if id.AuthSecret != "" {
		m.Secrets = []string{id.AuthSecret}
	}
	return m
}

// redacted returns a url without user and password: some servers take a token for either.
func redacted(u *url.URL) string {
	if u.User == nil {
		return u.String()
	}
	shown := *u
	shown.User = url.User("xxxxx")
	return shown.String()
}

// Parse reads the url and the attributes http.*; others are ignored.
func (s *Source) Parse(scheme, ref string, attrs map[string]string, _ ocispec.Platform) (source.Identifier, error) {
	id, err := parse(scheme+"://"+ref, attrs)
	if err != nil {
		return nil, err
	}
	return id, nil
}

func parse(ref string, attrs map[string]string) (*Identifier, error) {
	u, err := url.Parse(ref)
	if err != nil {
		// The error repeats the url, with what may be a password in it.
		return nil, fmt.Errorf("invalid http url: %w", withoutURL(err))
	}
	if u.Host == "" || u.Opaque != "" {
		return nil, fmt.Errorf("invalid http url %q: it names no host", redacted(u))
	}
	u.Fragment, u.RawFragment = "", ""
	id := &Identifier{
		URL:        u,
		AuthSecret: attrs[pb.AttrHTTPAuthHeaderSecret],
		Accept:     attrs[pb.AttrHTTPHeaderPrefix+"accept"],
		UserAgent:  attrs[pb.AttrHTTPHeaderPrefix+"user-agent"],
	}
	if id.Signature, err = parseSignature(attrs[pb.AttrHTTPSigPubKey], attrs[pb.AttrHTTPSigSignature]); err != nil {
		return nil, err
	}
	if id.file, err = tree.ParseFile(attrs); err != nil {
		return nil, err
	}
	if v := attrs[pb.AttrHTTPChecksum]; v != "" {
		if id.Checksum, err = digest.Parse(v); err != nil {
			return nil, fmt.Errorf("invalid %s %q: %w", pb.AttrHTTPChecksum, v, err)
		}
	}
	return id, nil
}

// name returns the name of the file, of which disposition is the name that the server gives.
func (id *Identifier) name(disposition string) string {
	for _, name := range []string{id.file.Name, path.Base("/" + disposition), path.Base(id.URL.Path)} {
		if tree.IsFileName(name) {
			return name
		}
	}
	return defaultName
}

// upload tells whether the url is that of a stream of the client.
func (id *Identifier) upload() bool {
	return isUpload(id.URL)
}

// content names all that decides what a server answers, without telling it. What was fetched with
// credentials is nothing that others may have.
func (id *Identifier) content(private bool) string {
	return hash(id.URL.String(), id.AuthSecret, id.Accept, id.UserAgent, private)
}

// key returns the key of the tree with a content that the server has shown to have.
func (id *Identifier) key(dgst digest.Digest, name, lastModified string) string {
	f := id.file
	f.Name = name
	return "http:" + hash(f, dgst, lastModified, id.AuthSecret, id.Accept, id.UserAgent) + id.Signature.key()
}

// promisedKey returns the key of the tree with the content that the checksum promises. Nobody has
// shown to have it: a checksum is no secret, so the key holds for this url only.
func (id *Identifier) promisedKey() string {
	return "http:" + hash(id.file, id.Checksum, id.content(false)) + id.Signature.key()
}

// hash returns a digest of values that have a JSON form.
func hash(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings and structs of this package
	}
	return digest.FromBytes(data).String()
}

// Instance prepares a url for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	u, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no url", id)
	}
	return &instance{src: s, id: u, env: env}, nil
}

var successes = []int{nethttp.StatusOK, nethttp.StatusNonAuthoritativeInfo}

// checkStatus refuses answers that hold no file, and parts of files, which nobody asked for.
func checkStatus(code int) error {
	if slices.Contains(successes, code) {
		return nil
	}
	err := fmt.Errorf("invalid response status %d", code)
	switch code {
	case nethttp.StatusUnauthorized:
		return status.WithCode(err, codes.Unauthenticated)
	case nethttp.StatusForbidden:
		return status.WithCode(err, codes.PermissionDenied)
	}
	return err
}

func isUpload(u *url.URL) bool { return u.Scheme == Scheme && u.Host == upload.Host }
