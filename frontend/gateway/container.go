package gateway

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// maxID bounds the ids that frontends choose, in bytes: they are kept.
const maxID = 256

// heldContainer is a container of the frontend.
type heldContainer struct {
	client.Container
	mounts []client.Mount
	// life ends when the container is released, before the processes do.
	life context.Context //nolint:containedctx // see above
	end  context.CancelFunc
}

// hasTree tells whether the mount at an index is a tree that can be read.
func (c *heldContainer) hasTree(index int32) bool {
	if index < 0 || int(index) >= len(c.mounts) {
		return false
	}
	t := c.mounts[index].MountType
	return t == pb.MountType_BIND || t == pb.MountType_CACHE
}

// NewContainer makes a container under the id that the frontend chose.
func (s *Server) NewContainer(ctx context.Context, req *gatewaypb.NewContainerRequest) (*gatewaypb.NewContainerResponse, error) {
	id := req.GetContainerID()
	if err := checkID("ContainerID", id); err != nil {
		return nil, err
	}
	decoded, err := s.decodeContainer(req)
	if err != nil {
		return nil, err
	}
	if err := s.reserveContainer(id); err != nil {
		return nil, err
	}
	ctr, err := s.bridge.NewContainer(ctx, decoded)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.containers, id)
		return nil, err
	}
	held := &heldContainer{Container: ctr, mounts: decoded.Mounts}
	held.life, held.end = context.WithCancel(context.Background())
	s.containers[id] = held
	return &gatewaypb.NewContainerResponse{}, nil
}

func checkID(field, id string) error {
	switch {
	case id == "":
		return invalid("%s required", field)
	case len(id) > maxID:
		return invalid("%s of %d bytes is too long", field, len(id))
	}
	return nil
}

// reserveContainer takes an id for a container that is being made: its entry is nil meanwhile.
func (s *Server) reserveContainer(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return status.New(codes.AlreadyExists, fmt.Sprintf("Container %s already exists", id))
	}
	s.containers[id] = nil
	return nil
}

// container returns the container of an id, nil if there is none.
func (s *Server) container(id string) *heldContainer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

func (s *Server) decodeContainer(req *gatewaypb.NewContainerRequest) (client.NewContainerRequest, error) {
	out := client.NewContainerRequest{
		NetMode:     req.GetNetwork(),
		Platform:    req.GetPlatform(),
		Constraints: req.GetConstraints(),
		ExtraHosts:  req.GetExtraHosts(),
		Hostname:    req.GetHostname(),
	}
	if slices.Contains(out.ExtraHosts, nil) {
		return out, invalid("invalid nil extra host")
	}
	for _, m := range req.GetMounts() {
		if m == nil {
			return out, invalid("invalid nil mount")
		}
		mount := client.Mount{
			Dest:      m.GetDest(),
			Selector:  m.GetSelector(),
			Readonly:  m.GetReadonly(),
			MountType: m.GetMountType(),
			TmpfsOpt:  m.GetTmpfsOpt(),
			CacheOpt:  m.GetCacheOpt(),
			SecretOpt: m.GetSecretOpt(),
			SSHOpt:    m.GetSSHOpt(),
		}
		if id := m.GetResultID(); id != "" {
			// Ids that are not of references here may be of results of a failed solve.
			if ref, ok := s.lookup(id); ok {
				mount.Ref = ref
			} else {
				mount.ResultID = id
			}
		}
		out.Mounts = append(out.Mounts, mount)
	}
	return out, nil
}

// ReleaseContainer ends a container.
func (s *Server) ReleaseContainer(ctx context.Context, req *gatewaypb.ReleaseContainerRequest) (*gatewaypb.ReleaseContainerResponse, error) {
	id := req.GetContainerID()
	s.mu.Lock()
	ctr := s.containers[id]
	if ctr != nil {
		delete(s.containers, id)
	}
	s.mu.Unlock()
	if ctr == nil {
		return nil, status.New(codes.NotFound, fmt.Sprintf("container details for %s not found", id))
	}
	ctr.end()
	if err := ctr.Release(ctx); err != nil {
		return nil, err
	}
	return &gatewaypb.ReleaseContainerResponse{}, nil
}

// tree is what can be read of a reference, or of a mount of a container.
type tree interface {
	ReadFile(ctx context.Context, req client.ReadRequest) ([]byte, error)
	ReadDir(ctx context.Context, req client.ReadDirRequest) ([]*stat, error)
	StatFile(ctx context.Context, path string) (*stat, error)
}

// mounted is a mount of a container as a tree.
type mounted struct {
	ctr   client.Container
	index int
}

func (m mounted) ReadFile(ctx context.Context, req client.ReadRequest) ([]byte, error) {
	return m.ctr.ReadFile(ctx, m.index, req)
}

func (m mounted) ReadDir(ctx context.Context, req client.ReadDirRequest) ([]*stat, error) {
	return m.ctr.ReadDir(ctx, m.index, req)
}

func (m mounted) StatFile(ctx context.Context, path string) (*stat, error) {
	return m.ctr.StatFile(ctx, m.index, path)
}

// mount returns the tree of a mount of the container with an id.
func (s *Server) mount(id string, index int32) (tree, error) {
	ctr := s.container(id)
	if ctr == nil || !ctr.hasTree(index) {
		return nil, status.New(codes.NotFound, fmt.Sprintf("container details for %s@%d not found", id, index))
	}
	return mounted{ctr, int(index)}, nil
}
