package key

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

var errCorrupt = errors.New("key store: corrupt record")

// record is what is stored of a key. Root keys have one only for their count of children.
type record struct {
	op Op
	// children counts the links that start here.
	children int
	links    []Link
}

func appendInt(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (r *record) encode() []byte {
	b := appendString(nil, string(r.op.Digest))
	b = appendInt(b, int64(r.op.Output))
	b = appendInt(b, int64(r.op.inputs))
	b = appendInt(b, int64(r.children))
	b = appendInt(b, int64(len(r.links)))
	for _, l := range r.links {
		b = appendInt(b, int64(l.Input))
		b = append(b, l.Alt.Key[:]...)
		b = appendString(b, l.Alt.Selector)
	}
	return b
}

func decodeRecord(b []byte) (*record, error) {
	d := decoder{b: b}
	r := &record{op: Op{Digest: digest.Digest(d.string()), Output: int(d.int()), inputs: int(d.int())}, children: int(d.int())}
	for n := d.int(); n > 0 && !d.bad; n-- {
		r.links = append(r.links, Link{Input: int(d.int()), Alt: Alt{Key: d.id(), Selector: d.string()}})
	}
	if d.bad || len(d.b) != 0 {
		return nil, errCorrupt
	}
	return r, nil
}

func encodeResults(rs []Result) []byte {
	var b []byte
	for _, r := range rs {
		b = appendInt(b, r.CreatedAt.UnixNano())
		b = appendString(b, r.ID)
	}
	return b
}

func decodeResults(b []byte) ([]Result, error) {
	d := decoder{b: b}
	var rs []Result
	for len(d.b) > 0 && !d.bad {
		t := d.int()
		rs = append(rs, Result{CreatedAt: time.Unix(0, t).UTC(), ID: d.string()})
	}
	if d.bad {
		return nil, errCorrupt
	}
	return rs, nil
}

func encodeIDs(ids []ID) []byte {
	b := make([]byte, 0, len(ids)*len(ID{}))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func decodeIDs(b []byte) ([]ID, error) {
	if len(b)%len(ID{}) != 0 {
		return nil, errCorrupt
	}
	ids := make([]ID, 0, len(b)/len(ID{}))
	for len(b) > 0 {
		ids = append(ids, ID(b[:len(ID{})]))
		b = b[len(ID{}):]
	}
	return ids, nil
}

// decoder reads what the encoders wrote; after the first fault everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) string() string {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || n > uint64(len(d.b)-size) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[size : size+int(n)])
	d.b = d.b[size+int(n):]
	return s
}

func (d *decoder) id() ID {
	if len(d.b) < len(ID{}) {
		d.bad, d.b = true, nil
		return ID{}
	}
	id := ID(d.b[:len(ID{})])
	d.b = d.b[len(ID{}):]
	return id
}
