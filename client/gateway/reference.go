package gateway

import (
	"context"

	fstypes "github.com/tonistiigi/fsutil/types"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// reference is a Reference by the id that a daemon gave it.
type reference struct {
	conn *Conn
	id   string
	def  *pb.Definition
}

// reference returns nil for the empty tree, which has no id.
func (c *Conn) reference(msg *gatewaypb.Ref) Reference {
	if msg.GetId() == "" {
		return nil
	}
	return &reference{conn: c, id: msg.GetId(), def: msg.GetDef()}
}

func encodeReference(ref Reference) (*gatewaypb.Ref, error) {
	if ref == nil {
		return &gatewaypb.Ref{}, nil
	}
	r, ok := ref.(*reference)
	if !ok {
		return nil, errForeignReference
	}
	return &gatewaypb.Ref{Id: r.id, Def: r.def}, nil
}

func (r *reference) Definition() *pb.Definition { return r.def }

func (r *reference) Evaluate(ctx context.Context) error {
	_, err := r.conn.bridge.Evaluate(ctx, &gatewaypb.EvaluateRequest{Ref: r.id})
	return err
}

func (r *reference) ReadFile(ctx context.Context, req ReadRequest) ([]byte, error) {
	resp, err := r.conn.bridge.ReadFile(ctx, encodeRead(r.id, req))
	if err != nil {
		return nil, err
	}
	return resp.GetData(), nil
}

func encodeRead(id string, req ReadRequest) *gatewaypb.ReadFileRequest {
	msg := &gatewaypb.ReadFileRequest{Ref: id, FilePath: req.Filename}
	if req.Range != nil {
		msg.Range = &gatewaypb.FileRange{Offset: req.Range.Offset, Length: req.Range.Length}
	}
	return msg
}

func (r *reference) ReadDir(ctx context.Context, req ReadDirRequest) ([]*fstypes.Stat, error) {
	resp, err := r.conn.bridge.ReadDir(ctx, &gatewaypb.ReadDirRequest{
		Ref:            r.id,
		DirPath:        req.Path,
		IncludePattern: req.IncludePattern,
	})
	if err != nil {
		return nil, err
	}
	return resp.GetEntries(), nil
}

func (r *reference) StatFile(ctx context.Context, path string) (*fstypes.Stat, error) {
	resp, err := r.conn.bridge.StatFile(ctx, &gatewaypb.StatFileRequest{Ref: r.id, Path: path})
	if err != nil {
		return nil, err
	}
	return resp.GetStat(), nil
}
