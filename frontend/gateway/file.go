package gateway

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// maxRead is how much of a file one call reads: what fits, with what surrounds it, into a message
// of 16 MiB, the limit of the API.
const maxRead = 16<<20 - 1<<10

// ReadFile returns a file of a reference or the part of it that the range names.
func (s *Server) ReadFile(ctx context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	ref, err := s.ref(req.GetRef())
	if err != nil {
		return nil, err
	}
	// One byte more than is allowed shows that there is more.
	window := client.FileRange{Length: maxRead + 1}
	if r := req.GetRange(); r != nil {
		if r.GetOffset() < 0 || r.GetLength() < 0 {
			return nil, invalid("read %s: range of %d bytes at %d", req.GetFilePath(), r.GetLength(), r.GetOffset())
		}
		window = client.FileRange{Offset: r.GetOffset(), Length: min(r.GetLength(), maxRead+1)}
	}
	data, err := ref.ReadFile(ctx, client.ReadRequest{Filename: req.GetFilePath(), Range: &window})
	if err != nil {
		return nil, err
	}
	if len(data) > maxRead {
		return nil, status.New(codes.ResourceExhausted, fmt.Sprintf("read %s: more than %d bytes, read it in ranges", req.GetFilePath(), maxRead))
	}
	return &gatewaypb.ReadFileResponse{Data: data}, nil
}

// ReadDir lists a directory of a reference.
func (s *Server) ReadDir(ctx context.Context, req *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	ref, err := s.ref(req.GetRef())
	if err != nil {
		return nil, err
	}
	entries, err := ref.ReadDir(ctx, client.ReadDirRequest{Path: req.GetDirPath(), IncludePattern: req.GetIncludePattern()})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.ReadDirResponse{Entries: entries}, nil
}

// StatFile describes a path of a reference.
func (s *Server) StatFile(ctx context.Context, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	ref, err := s.ref(req.GetRef())
	if err != nil {
		return nil, err
	}
	stat, err := ref.StatFile(ctx, req.GetPath())
	if err != nil {
		return nil, err
	}
	return &gatewaypb.StatFileResponse{Stat: stat}, nil
}
