package session

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	controlpb "github.com/openbuildkit/buildkit/api/control"
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
	buf := buffers.Get(size)
	return &Frame{Data: (*buf)[:0], pooled: buf}
}

// WithCodec is an option of calls that move much: to services that use frames, and of the call
// that is itself a session.
func WithCodec() grpc.CallOption { return grpc.ForceCodecV2(newCodec()) }

// ServerCodec is the option of servers of such calls.
func ServerCodec() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

// codec lets frames pass, moves the messages of a session with little copying, and leaves other
// messages to protobuf. On the wire nothing is different.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Name is empty, so that calls look as they do with the codec that gRPC takes by itself.
func (codec) Name() string { return "" }

// dataField is the only field of a BytesMessage.
const dataField protowire.Number = 1

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Frame:
		if m.pooled == nil || cap(m.Data) != cap(*m.pooled) {
			return mem.BufferSlice{mem.SliceBuffer(m.Data)}, nil
		}
		*m.pooled = m.Data
		return mem.BufferSlice{mem.NewBuffer(m.pooled, buffers)}, nil
	case *controlpb.BytesMessage:
		if len(m.Data) == 0 || len(m.ProtoReflect().GetUnknown()) > 0 {
			break
		}
		buf := buffers.Get(protowire.SizeTag(dataField) + protowire.SizeBytes(len(m.Data)))
		b := protowire.AppendTag((*buf)[:0], dataField, protowire.BytesType)
		*buf = protowire.AppendBytes(b, m.Data)
		return mem.BufferSlice{mem.NewBuffer(buf, buffers)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Frame:
		*m = Frame{Data: data.Materialize()}
		return nil
	case *controlpb.BytesMessage:
		b := data.Materialize()
		if num, typ, n := protowire.ConsumeTag(b); n > 0 && num == dataField && typ == protowire.BytesType {
			if p, size := protowire.ConsumeBytes(b[n:]); size == len(b)-n {
				m.Reset()
				m.Data = p
				return nil
			}
		}
		return c.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, v)
	}
	return c.CodecV2.Unmarshal(data, v)
}

// buffers are what messages are made in. They are not cleared, as those of gRPC are.
var buffers = &bufferPool{}

const (
	// Buffers have 1<<minBuffer bytes, twice as many in each further pool, and some more: content
	// comes in powers of two, with something before it.
	minBuffer   = 12
	extraBuffer = 256
	bufferPools = 11
)

// bufferPool is a mem.BufferPool.
type bufferPool struct{ pools [bufferPools]sync.Pool }

// class returns the pool of buffers that hold size bytes; it may be out of range.
func class(size int) int { return max(bits.Len(uint(max(size-extraBuffer, 1)-1))-minBuffer, 0) }

// bufferSize is the size of the buffers of a pool.
func bufferSize(class int) int { return 1<<(minBuffer+class) + extraBuffer }

// Get returns a buffer of a length, with any content.
func (p *bufferPool) Get(length int) *[]byte {
	i := class(length)
	if i >= bufferPools {
		b := make([]byte, length)
		return &b
	}
	b, ok := p.pools[i].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, bufferSize(i))
		b = &fresh
	}
	*b = (*b)[:length]
	return b
}

// Put takes a buffer back.
func (p *bufferPool) Put(b *[]byte) {
	if i := class(cap(*b)); i < bufferPools && cap(*b) == bufferSize(i) {
		p.pools[i].Put(b)
	}
}
