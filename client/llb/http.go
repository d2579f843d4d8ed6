package llb

import (
	"strings"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// HTTPOption changes how a file is fetched over HTTP.
type HTTPOption interface {
	applyHTTP(*sourceInfo)
}

type httpOpt func(*sourceInfo)

func (o httpOpt) applyHTTP(s *sourceInfo) { o(s) }

// HTTP fetches a URL as a tree of one file. Filename, Chmod and Chown say how the file is made.
func HTTP(url string, opts ...HTTPOption) State {
	var info sourceInfo
	for _, o := range opts {
		o.applyHTTP(&info)
	}
	info.need(pb.CapSourceHTTP)
	return (&sourceOp{identifier: url, info: info}).state()
}

// Checksum fails the build if the content has another digest, and saves asking the server if it
// is cached.
func Checksum(dgst digest.Digest) HTTPOption {
	return httpOpt(func(s *sourceInfo) {
		s.set(pb.AttrHTTPChecksum, string(dgst), pb.CapSourceHTTPChecksum)
	})
}

// Header sets a request header. Daemons send only Accept and User-Agent.
func Header(name, value string) HTTPOption {
	return httpOpt(func(s *sourceInfo) {
		s.set(pb.AttrHTTPHeaderPrefix+strings.ToLower(name), value, pb.CapSourceHTTPHeader)
	})
}

// HTTPSignature verifies the file: key is an armored public key, signature an armored detached
// signature.
func HTTPSignature(key, signature string) HTTPOption {
	return httpOpt(func(s *sourceInfo) {
		s.set(pb.AttrHTTPSigPubKey, key, pb.CapSourceHTTPSignatureVerify)
		s.set(pb.AttrHTTPSigSignature, signature, pb.CapSourceHTTPSignatureVerify)
	})
}

// AuthHeaderSecret names the secret that holds the Authorization header.
func AuthHeaderSecret(id string) interface {
	HTTPOption
	GitOption
} {
	return authHeader(id)
}

type authHeader string

func (a authHeader) applyHTTP(s *sourceInfo) {
	s.set(pb.AttrHTTPAuthHeaderSecret, string(a), pb.CapSourceHTTPAuth)
}

func (a authHeader) applyGit(g *gitInfo) {
	g.set(pb.AttrGitAuthHeaderSecret, string(a), pb.CapSourceGitHTTPAuth)
}
