package checksum

import "testing"

func FuzzDecodeTable(f *testing.F) {
	t := newTable()
	t.entries["a/b"] = Entry{Kind: File, Hashed: true}
	f.Add(t.encode())
	f.Add([]byte{valueVersion, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if tab, err := decodeTable(b); err == nil {
			if again, err := decodeTable(tab.encode()); err != nil || len(again.entries) != len(tab.entries) {
				t.Fatalf("table does not survive: %v", err)
			}
		}
	})
}
