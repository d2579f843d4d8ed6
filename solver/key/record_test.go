package key

import "testing"

func FuzzDecodeRecord(f *testing.F) {
	r := &record{op: Op{Digest: "sha256:00", Output: 1, inputs: 2}, children: 3, links: []Link{{Input: 1, Alt: Alt{Selector: "/a"}}}}
	f.Add(r.encode())
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.encode())
			if err != nil || len(again.links) != len(r.links) {
				t.Fatalf("%v does not survive: %v", r, err)
			}
		}
		_, _ = decodeResults(b)
		_, _ = decodeIDs(b)
	})
}
