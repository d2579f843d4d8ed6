package filesync

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/protobuf/encoding/protowire"
)

func batchOf(raw ...[]byte) []byte {
	var b []byte
	for _, p := range raw {
		b = protowire.AppendTag(b, batchField, protowire.BytesType)
		b = protowire.AppendBytes(b, p)
	}
	return b
}

func TestMessagesOfPacketsThatBreakTheRules(t *testing.T) {
	for name, b := range map[string][]byte{
		"another field":       {0x12, 0x00},
		"another type":        {0x08, 0x01},
		"cut off":             {0x0a, 0x05, 0x00},
		"no packet inside":    batchOf([]byte{0xff}),
		"more than is useful": batchOf(make([][]byte, maxBatch+1)...),
	} {
		_, err := parseBatch(b)
		var perr *ProtocolError
		require.ErrorAs(t, err, &perr, name)
	}
}

// FuzzBatch reads anything as a message of packets.
func FuzzBatch(f *testing.F) {
	for _, p := range []*types.Packet{
		{Type: types.PACKET_STAT, Stat: &types.Stat{Path: "a", Xattrs: map[string][]byte{"user.x": {1}}}},
		{Type: types.PACKET_STAT},
		{Type: types.PACKET_REQ, ID: 7},
		{Type: types.PACKET_DATA, ID: 7, Data: []byte("data")},
		{Type: types.PACKET_FIN},
	} {
		raw, err := p.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(batchOf(raw, raw))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		packets, err := parseBatch(data)
		if err != nil {
			return
		}
		var again [][]byte
		for _, p := range packets {
			raw, err := p.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, raw)
		}
		if same, err := parseBatch(batchOf(again...)); err != nil || len(same) != len(packets) {
			t.Fatalf("packets do not survive: %v", err)
		}
	})
}
