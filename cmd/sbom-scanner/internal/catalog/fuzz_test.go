package catalog

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"testing"
)

// fuzz runs a parser on anything; what it finds has to stay within what there is.
func fuzz(f *testing.F, parse parser, seeds ...[]byte) {
	f.Helper()
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		count := 0
		_ = parse(io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), func(p Package) error {
			count++
			for _, field := range []string{p.Name, p.Version, p.Arch, p.Source, p.License} {
				if len(field) > len(data)+16 {
					t.Errorf("a field of %d bytes out of %d", len(field), len(data))
				}
			}
			return nil
		})
		if count > len(data)+1 {
			t.Errorf("%d packages out of %d bytes", count, len(data))
		}
	})
}

func FuzzDpkg(f *testing.F) {
	fuzz(f, parseDpkg, []byte("Package: a\nStatus: install ok installed\nSource: b (1)\nVersion: 1\nDescription: x\n y\n\nPackage: c\n"))
}

func FuzzAPK(f *testing.F) { fuzz(f, parseAPK, []byte("P:a\nV:1\nA:x\nL:MIT\no:b\n\nP:c\r\n")) }

func FuzzPython(f *testing.F) {
	fuzz(f, parsePython, []byte("Name: a\nVersion: 1\nLicense: MIT\n\nbody"))
}

func FuzzNPM(f *testing.F) {
	fuzz(f, parseNPM, []byte(`{"name":"a","version":"1","license":{"type":"MIT"}}`))
}

func FuzzRPM(f *testing.F) {
	data, err := os.ReadFile("testdata/rpmdb.sqlite")
	if err != nil {
		f.Fatal(err)
	}
	fuzz(f, parseRPM, data, data[:1024], manyRows()[:4096])
}

func FuzzGo(f *testing.F) {
	fuzz(f, parseGo, append([]byte(elf.ELFMAG), make([]byte, 64)...), []byte("MZ"))
}

func FuzzRelease(f *testing.F) {
	f.Add([]byte("ID=\"a\"\nVERSION_ID='1'\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { parseRelease(bytes.NewReader(data)) })
}

// manyRows is a database of one page whose rows are all the same bytes, far more often than there is
// room for.
func manyRows() []byte {
	const page = 1 << 16
	data := make([]byte, page)
	copy(data, sqliteMagic)
	data[17] = 1 // 65536
	data[sqliteHeader] = pageLeaf
	cells := (page - sqliteHeader - 8 - 64) / 2
	data[sqliteHeader+3], data[sqliteHeader+4] = byte(cells>>8), byte(cells)
	for i := range cells {
		at := sqliteHeader + 8 + 2*i
		data[at], data[at+1] = (page-64)>>8, (page-64)&0xff
	}
	// A row of two values: payload of 3 bytes, key 1, header of 3 bytes.
	copy(data[page-64:], []byte{3, 1, 3, 0, 0})
	return data
}

func TestRowsThatOverlapAreBounded(t *testing.T) {
	data := manyRows()
	rows := 0
	db, err := openDatabase(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	db.rows = 1000
	if err := db.walk(1, 0, func([]any) error { rows++; return nil }); !errors.Is(err, errDamaged) || rows != 1000 {
		t.Errorf("%d rows, %v", rows, err)
	}
}
