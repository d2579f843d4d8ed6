package filesync

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/openbuildkit/buildkit/session"
)

// A link carries packets to and from the peer. Peers of our kind offer services beside the common
// ones in which a message holds many packets: it is a protobuf with nothing but packets as field
// 1. Everything else, such as metadata and the order of packets, is the same.

// batchSync and batchSend are those services.
var (
	batchSync = batchService("openbuildkit.filesync.v1.FileSync")
	batchSend = batchService("openbuildkit.filesync.v1.FileSend")
)

// batchMethod is the only method of such a service, with the name that it has in the common ones.
const batchMethod = "DiffCopy"

// batchHandler is the client's half of such a service.
type batchHandler interface {
	diffCopyBatches(grpc.ServerStream) error
}

func batchService(name string) grpc.ServiceDesc {
	return grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*batchHandler)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: batchMethod,
			Handler: func(srv any, stream grpc.ServerStream) error {
				return srv.(batchHandler).diffCopyBatches(stream)
			},
			ServerStreams: true,
			ClientStreams: true,
		}},
	}
}

func fullMethod(service *grpc.ServiceDesc) string {
	return "/" + service.ServiceName + "/" + batchMethod
}

// openBatches calls a service of a client; nil if the client does not have it.
func openBatches(ctx context.Context, c *session.Caller, service *grpc.ServiceDesc) (grpc.ClientStream, error) {
	if !c.Supports(fullMethod(service)) {
		return nil, nil
	}
	return c.Conn().NewStream(ctx, &service.Streams[0], fullMethod(service), session.WithCodec())
}

// stream is either end of a gRPC stream of messages.
type stream interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// packetStream moves packets, some at a time. One goroutine may send and another receive.
type packetStream interface {
	Context() context.Context
	// sendPackets sends packets in order. They can be used again afterwards.
	sendPackets(packets []*types.Packet) error
	// receivePackets returns what comes next, at least one packet.
	receivePackets() ([]*types.Packet, error)
	// batchSize is the number of bytes that are worth a message.
	batchSize() int
}

// single is a stream with a packet in each message.
type single struct{ stream }

func (s single) batchSize() int { return 1 }

func (s single) sendPackets(packets []*types.Packet) error {
	for _, p := range packets {
		if err := s.SendMsg(p); err != nil {
			return err
		}
	}
	return nil
}

func (s single) receivePackets() ([]*types.Packet, error) {
	p := &types.Packet{}
	return []*types.Packet{p}, s.RecvMsg(p)
}

// batched is a stream with many packets in each message.
type batched struct{ stream }

const (
	// batchField is the field of a message that holds a packet.
	batchField protowire.Number = 1
	// maxBatch bounds the packets in a message, and with them the memory that a message takes.
	maxBatch = 4096
)

func (s batched) batchSize() int { return 64 << 10 }

func (s batched) sendPackets(packets []*types.Packet) error {
	size := 0
	for _, p := range packets {
		size += protowire.SizeTag(batchField) + protowire.SizeBytes(p.SizeVT())
	}
	f := session.NewFrame(size)
	for _, p := range packets {
		n := p.SizeVT()
		f.Data = protowire.AppendTag(f.Data, batchField, protowire.BytesType)
		f.Data = protowire.AppendVarint(f.Data, uint64(n))
		at := len(f.Data)
		f.Data = f.Data[:at+n]
		if _, err := p.MarshalToSizedBufferVT(f.Data[at:]); err != nil {
			return err
		}
	}
	return s.SendMsg(f)
}

func (s batched) receivePackets() ([]*types.Packet, error) {
	for {
		var f session.Frame
		if err := s.RecvMsg(&f); err != nil {
			return nil, err
		}
		if packets, err := parseBatch(f.Data); err != nil || len(packets) > 0 {
			return packets, err
		}
	}
}

// parseBatch returns the packets in a message. Their data, but nothing else, is that of the message.
func parseBatch(b []byte) ([]*types.Packet, error) {
	var raw [][]byte
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num != batchField || typ != protowire.BytesType {
			return nil, protocolErrorf("a message that holds something else than packets")
		}
		b = b[n:]
		p, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nil, protocolErrorf("a message that is cut off")
		}
		if raw = append(raw, p); len(raw) > maxBatch {
			return nil, protocolErrorf("a message of more than %d packets", maxBatch)
		}
		b = b[n:]
	}
	packets := make([]*types.Packet, len(raw))
	for i, p := range raw {
		packets[i] = &types.Packet{}
		var err error
		// A description outlives the message; it comes before everything else in its packet.
		if len(p) > 0 && p[0] == byte(protowire.EncodeTag(2, protowire.BytesType)) {
			err = packets[i].UnmarshalVT(p)
		} else {
			err = packets[i].UnmarshalVTUnsafe(p)
		}
		if err != nil {
			return nil, protocolErrorf("a packet that can't be read: %v", err)
		}
	}
	return packets, nil
}

// link is a packetStream that several goroutines may send to.
type link struct {
	packetStream
	mu sync.Mutex
}

// send sends packets without others between them.
func (l *link) send(packets ...*types.Packet) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sendPackets(packets)
}

// errorGrace is how long a peer has to take the reason for an end; a stalled one gets none.
const errorGrace = 500 * time.Millisecond

// sendError tells the peer why the transfer ends, if that is possible in short time.
func (l *link) sendError(err error) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = l.send(&types.Packet{Type: types.PACKET_ERR, Data: []byte(err.Error())})
	}()
	timer := time.NewTimer(errorGrace)
	defer timer.Stop()
	select {
	case <-sent:
	case <-timer.C:
	case <-l.Context().Done():
	}
}

// closeStream says that nothing follows and waits for the other side's verdict.
func closeStream(stream grpc.ClientStream, into any) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := drain(stream, into); err != io.EOF {
		return err
	}
	return nil
}

// maxIgnored is how many messages may follow when nothing more is expected. A peer that goes on for
// ever must not hold us.
const maxIgnored = 1000

var errTalks = protocolErrorf("the other side does not stop sending after the end")

// drain reads to the end of a stream and returns why it ended, io.EOF for a good end.
func drain(stream grpc.ClientStream, into any) error {
	for range maxIgnored {
		if err := stream.RecvMsg(into); err != nil {
			return err
		}
	}
	return errTalks
}

// packetSize is what a packet counts for in what users see of a transfer: its size on the wire,
// but for what only our own client adds to it.
func packetSize(p *types.Packet) int64 {
	n := p.SizeVT()
	if p.Stat != nil {
		n -= len(p.Stat.ProtoReflect().GetUnknown())
	}
	return int64(n)
}
