//go:build linux

package filesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil/types"
)

// script is a stream from a peer that says what a test says and takes what it is told.
type script struct {
	ctx     context.Context
	packets []*types.Packet
}

func (s *script) Context() context.Context { return s.ctx }
func (s *script) SendMsg(any) error        { return nil }

func (s *script) RecvMsg(m any) error {
	if len(s.packets) == 0 {
		return io.EOF
	}
	p := s.packets[0]
	s.packets = s.packets[1:]
	data, err := p.MarshalVT()
	if err != nil {
		return err
	}
	return m.(*types.Packet).UnmarshalVT(data)
}

func encode(packets ...*types.Packet) []byte {
	var out []byte
	for _, p := range packets {
		data, err := p.MarshalVT()
		if err != nil {
			panic(err)
		}
		out = append(binary.AppendUvarint(out, uint64(len(data))), data...)
	}
	return out
}

func decode(data []byte) (packets []*types.Packet) {
	for len(data) > 0 {
		n, size := binary.Uvarint(data)
		if size <= 0 || n > uint64(len(data)-size) {
			return packets
		}
		p := &types.Packet{}
		if p.UnmarshalVT(data[size:size+int(n)]) == nil {
			packets = append(packets, p)
		}
		data = data[size+int(n):]
	}
	return packets
}

// FuzzReceiver lets a sender say anything. Whatever it is, the transfer ends and nothing changes
// beside the destination.
func FuzzReceiver(f *testing.F) {
	stat := func(p string, mode os.FileMode, link string) *types.Packet {
		return &types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{Path: p, Mode: uint32(mode), Linkname: link, Xattrs: map[string][]byte{"user.x": {1}}}}
	}
	f.Add(encode(stat("a", os.ModeDir|0o755, ""), stat("a/b", 0o644, ""), stat("c", os.ModeSymlink|0o777, ".."),
		&types.Packet{Type: types.PACKET_STAT}, &types.Packet{Type: types.PACKET_DATA, ID: 1, Data: []byte("x")}, &types.Packet{Type: types.PACKET_DATA, ID: 1}, &types.Packet{Type: types.PACKET_FIN}))
	f.Add(encode(stat("old", os.ModeSymlink|0o777, "../beside"), stat("old/x", 0o644, "")))
	f.Add(encode(stat("p", os.ModeNamedPipe, ""), stat("q", 0o644, "p"), &types.Packet{Type: types.PACKET_STAT}))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dst := filepath.Join(parent, "dst")
		for name, text := range map[string]string{"beside/file": "beside", "dst/old/file": "old"} {
			p := filepath.Join(parent, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := openTree(dst)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := newReceiver(single{&script{ctx: ctx, packets: decode(data)}}, root, receiveOpt{next: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		_ = r.run(ctx) // any outcome is right that leaves the outside alone
		if ctx.Err() != nil {
			t.Fatal("the transfer did not end")
		}
		r.wait()
		root.Close()
		entries, err := os.ReadDir(parent)
		if err != nil || len(entries) != 2 {
			t.Fatalf("beside the destination: %v, %v", entries, err)
		}
		text, err := os.ReadFile(filepath.Join(parent, "beside/file"))
		if err != nil || string(text) != "beside" {
			t.Fatalf("file beside the destination: %q, %v", text, err)
		}
	})
}

// FuzzState reads anything as a state.
func FuzzState(f *testing.F) {
	var b bytes.Buffer
	w := newStateWriter(&b, time.Unix(1, 0))
	if err := errors.Join(w.add(&types.Stat{Path: "a", Mode: uint32(os.ModeDir)}), w.add(&types.Stat{Path: "a/b"}), w.finish()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{stateVersion, 0, 0xff, 0xff, 0xff, 0x07})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := newStateReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		last := ""
		for descend := true; ; descend = !descend {
			e, err := s.next(descend)
			if err != nil || e == nil {
				return
			}
			if last != "" && comparePaths(last, e.path) >= 0 {
				t.Fatalf("%q after %q", e.path, last)
			}
			last = e.path
		}
	})
}

// FuzzToken reads anything as the unknown fields of a description.
func FuzzToken(f *testing.F) {
	st := &types.Stat{}
	setToken(st, []byte("token"))
	f.Add([]byte(st.ProtoReflect().GetUnknown()))
	f.Fuzz(func(t *testing.T, data []byte) {
		st := &types.Stat{}
		st.ProtoReflect().SetUnknown(data)
		tokenOf(st)
	})
}
