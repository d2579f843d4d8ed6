package session

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Frame is a message whose encoding is left to the service: gRPC moves its bytes as they are. It
// suits services that move much and are known to both sides, as with those of package filesync.
//
// A received frame belongs to the receiver. To send one, NewFrame is filled and given away.
type Frame struct {
	Data   []byte
	pooled *[]byte
}

// NewFrame returns an empty frame with room for size bytes. It must not be used after it was sent.
func NewFrame(size int) *Frame {
	buf := mem.DefaultBufferPool().Get(size)
	return &Frame{Data: (*buf)[:0], pooled: buf}
}

// WithFrames is an option of calls to services that use frames.
func WithFrames() grpc.CallOption { return grpc.ForceCodecV2(codec{encoding.GetCodecV2(proto.Name)}) }

// codec lets frames pass and leaves other messages to protobuf.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if f.pooled == nil || cap(f.Data) != cap(*f.pooled) {
		return mem.BufferSlice{mem.SliceBuffer(f.Data)}, nil
	}
	*f.pooled = f.Data
	return mem.BufferSlice{mem.NewBuffer(f.pooled, mem.DefaultBufferPool())}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	*f = Frame{Data: data.Materialize()}
	return nil
}
