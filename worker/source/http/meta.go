//go:build linux

package http

import (
	"context"
	"crypto"
	"fmt"
	"io"
	nethttp "net/http"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/worker/source"
)

// maxSuffix bounds what may be hashed after a file, in bytes.
const maxSuffix = 4 << 10

// ResolveHTTP tells what a url stands for, having fetched it if need be. With sum the file is
// hashed once more, followed by the suffix of sum, which is how signatures hash what they sign.
func (s *Source) ResolveHTTP(ctx context.Context, id source.Identifier, sum *gatewaypb.ChecksumRequest, env source.Env) (*gatewaypb.ResolveSourceHTTPResponse, error) {
	u, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no url", id)
	}
	i := &instance{src: s, id: u, env: env}
	v, err := i.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if c := u.Checksum; c != "" && !v.has(c) {
		return nil, &MismatchError{URL: u.String(), Got: v.Digest, Want: c}
	}
	resp := &gatewaypb.ResolveSourceHTTPResponse{Checksum: v.Digest.String(), Filename: u.name(v.Disposition)}
	if t, err := nethttp.ParseTime(v.LastModified); err == nil {
		resp.LastModified = timestamppb.New(t)
	}
	if sum != nil {
		resp.ChecksumResponse, err = i.sum(ctx, v, sum)
	}
	return resp, err
}

// sum hashes a file as it was asked for.
func (i *instance) sum(ctx context.Context, v *version, req *gatewaypb.ChecksumRequest) (*gatewaypb.ChecksumResponse, error) {
	h, name, err := algorithm(req)
	if err != nil {
		return nil, err
	}
	w := h.New()
	err = i.read(ctx, v, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.Write(req.GetSuffix())
	return &gatewaypb.ChecksumResponse{
		Digest: digest.NewDigest(name, w).String(),
		Suffix: req.GetSuffix(),
	}, nil
}

func algorithm(req *gatewaypb.ChecksumRequest) (crypto.Hash, digest.Algorithm, error) {
	if n := len(req.GetSuffix()); n > maxSuffix {
		return 0, "", status.New(codes.InvalidArgument, fmt.Sprintf("checksum suffix of %d bytes is longer than %d", n, maxSuffix))
	}
	switch req.GetAlgo() {
	case gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA256:
		return crypto.SHA256, digest.SHA256, nil
	case gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA384:
		return crypto.SHA384, digest.SHA384, nil
	case gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA512:
		return crypto.SHA512, digest.SHA512, nil
	}
	return 0, "", status.New(codes.InvalidArgument, fmt.Sprintf("unknown checksum algorithm %d", req.GetAlgo()))
}
