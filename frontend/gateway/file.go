package gateway

import (
	"context"
	"fmt"

	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// maxRead is how much of a file one call reads: what fits, with what surrounds it, into a message
// of 16 MiB, the limit of the API.
const maxRead = 16<<20 - 1<<10

type stat = fstypes.Stat

// ReadFile returns a file of a reference or the part of it that the range names.
func (s *Server) ReadFile(ctx context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	ref, err := s.ref(req.GetRef())
	if err != nil {
		return nil, err
	}
	return readFile(ctx, ref, req)
}

// ReadFileContainer is ReadFile for a mount of a container.
func (s *Server) ReadFileContainer(ctx context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	mount, err := s.mount(req.GetRef(), req.GetMountIndex())
	if err != nil {
		return nil, err
	}
	return readFile(ctx, mount, req)
}

func readFile(ctx context.Context, t tree, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	// One byte more than is allowed shows that there is more.
	window := client.FileRange{Length: maxRead + 1}
	if r := req.GetRange(); r != nil {
		if r.GetOffset() < 0 || r.GetLength() < 0 {
			return nil, invalid("read %s: range of %d bytes at %d", req.GetFilePath(), r.GetLength(), r.GetOffset())
		}
		window = client.FileRange{Offset: r.GetOffset(), Length: min(r.GetLength(), maxRead+1)}
	}
	data, err := t.ReadFile(ctx, client.ReadRequest{Filename: req.GetFilePath(), Range: &window})
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
	return readDir(ctx, ref, req)
}

// ReadDirContainer is ReadDir for a mount of a container.
func (s *Server) ReadDirContainer(ctx context.Context, req *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	mount, err := s.mount(req.GetRef(), req.GetMountIndex())
	if err != nil {
		return nil, err
	}
	return readDir(ctx, mount, req)
}

func readDir(ctx context.Context, t tree, req *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	entries, err := t.ReadDir(ctx, client.ReadDirRequest{Path: req.GetDirPath(), IncludePattern: req.GetIncludePattern()})
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
	return statFile(ctx, ref, req)
}

// StatFileContainer is StatFile for a mount of a container.
func (s *Server) StatFileContainer(ctx context.Context, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	mount, err := s.mount(req.GetRef(), req.GetMountIndex())
	if err != nil {
		return nil, err
	}
	return statFile(ctx, mount, req)
}

func statFile(ctx context.Context, t tree, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	st, err := t.StatFile(ctx, req.GetPath())
	if err != nil {
		return nil, err
	}
	return &gatewaypb.StatFileResponse{Stat: st}, nil
}
