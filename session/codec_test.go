package session

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

func TestMessagesOfASessionAreWhatProtobufMakesOfThem(t *testing.T) {
	plain := encoding.GetCodecV2(proto.Name)
	for _, size := range []int{0, 1, 127, 128, 4093, 4096, 5 << 20} {
		m := &controlpb.BytesMessage{Data: []byte(strings.Repeat("x", size))}
		ours, err := newCodec().Marshal(m)
		require.NoError(t, err)
		theirs, err := plain.Marshal(m)
		require.NoError(t, err)
		require.True(t, bytes.Equal(theirs.Materialize(), ours.Materialize()), size)
		var got controlpb.BytesMessage
		require.NoError(t, newCodec().Unmarshal(theirs, &got))
		require.True(t, bytes.Equal(m.GetData(), got.GetData()), size)
		ours.Free()
	}
}

func TestMessagesOfASessionMayHaveOtherForms(t *testing.T) {
	for name, tc := range map[string]struct{ raw, want string }{
		"the field twice":  {"\x0a\x01a\x0a\x02bc", "bc"},
		"an unknown field": {"\x0a\x01a\x10\x05", "a"},
		"a field before":   {"\x10\x05\x0a\x01a", "a"},
	} {
		var got controlpb.BytesMessage
		require.NoError(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(tc.raw)}, &got), name)
		require.Equal(t, tc.want, string(got.GetData()), name)
	}
	require.Error(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer("\x0a\x05a")}, &controlpb.BytesMessage{}))
}

func TestBuffersAreUsedAgain(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 4097, 64 << 10, 1<<22 + 1, 8 << 20} {
		b := buffers.Get(size)
		require.Len(t, *b, size)
		*b = (*b)[:size/2]
		buffers.Put(b)
	}
	f := NewFrame(100)
	f.Data = append(f.Data, "abc"...)
	sent, err := newCodec().Marshal(f)
	require.NoError(t, err)
	require.Equal(t, "abc", string(sent.Materialize()))
	sent.Free()
}
