package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// database reads tables of an SQLite file, of the rows that were written to the file itself and not
// only to a log beside it. The format is https://www.sqlite.org/fileformat2.html.
type database struct {
	r io.ReaderAt
	// page is the size of a page, usable what of it holds data, in bytes.
	page, usable int
	// pages is how many may still be read: a file has no reason to have one read twice.
	pages int64
	// rows is how many may still be read: in a page they may overlap.
	rows int
}

const (
	sqliteMagic  = "SQLite format 3\x00"
	sqliteHeader = 100
	// Kinds of pages of a table.
	pageInterior = 0x05
	pageLeaf     = 0x0d
	// maxRow is how large one row may be, in bytes.
	maxRow = 64 << 20
	// maxTree is how deep a table may be.
	maxTree = 32
	// maxRows and maxColumns are what a table may have; those of rpm have two columns.
	maxRows    = 2 * defaultPackages
	maxColumns = 32
)

var errDamaged = errors.New("the database is damaged")

func openDatabase(r io.ReaderAt, size int64) (*database, error) {
	header := make([]byte, sqliteHeader)
	if _, err := r.ReadAt(header, 0); err != nil || string(header[:len(sqliteMagic)]) != sqliteMagic {
		return nil, errors.New("not an SQLite database")
	}
	page := int(binary.BigEndian.Uint16(header[16:]))
	if page == 1 {
		page = 1 << 16
	}
	if page < 512 || page&(page-1) != 0 || page-int(header[20]) < 480 {
		return nil, errDamaged
	}
	// The schema is read besides the table: hence the twofold.
	return &database{r: r, page: page, usable: page - int(header[20]), pages: 2 * (size/int64(page) + 1), rows: maxRows}, nil
}

// table calls fn for the rows of a table, as values of which each is an int64, a []byte or nil.
func (d *database) table(name string, fn func(row []any) error) error {
	root := int64(0)
	err := d.walk(1, 0, func(row []any) error {
		// type, name, tbl_name, rootpage, sql
		if len(row) >= 4 && text(row[0]) == "table" && text(row[1]) == name {
			root, _ = row[3].(int64)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root < 1 || root > math.MaxUint32 {
		return fmt.Errorf("the database has no table %s", name)
	}
	return d.walk(uint32(root), 0, fn)
}

func text(v any) string {
	b, _ := v.([]byte)
	return string(b)
}

// read returns a page; number begins with 1.
func (d *database) read(number uint32) ([]byte, error) {
	if d.pages--; number == 0 || d.pages < 0 {
		return nil, errDamaged
	}
	data := make([]byte, d.page)
	if _, err := d.r.ReadAt(data, (int64(number)-1)*int64(d.page)); err != nil {
		return nil, errDamaged
	}
	return data, nil
}

// walk goes through the rows below a page.
func (d *database) walk(number uint32, depth int, fn func([]any) error) error {
	data, err := d.read(number)
	if err != nil || depth > maxTree {
		return errDamaged
	}
	at := 0
	if number == 1 {
		at = sqliteHeader
	}
	kind, cells := data[at], int(binary.BigEndian.Uint16(data[at+3:]))
	pointers := at + 8
	if kind == pageInterior {
		pointers += 4
	}
	if pointers+2*cells > d.usable {
		return errDamaged
	}
	for i := range cells {
		cell := int(binary.BigEndian.Uint16(data[pointers+2*i:]))
		if cell+4 > d.usable {
			return errDamaged
		}
		switch kind {
		case pageInterior:
			err = d.walk(binary.BigEndian.Uint32(data[cell:]), depth+1, fn)
		case pageLeaf:
			err = d.cell(data[cell:d.usable], fn)
		default:
			err = errDamaged
		}
		if err != nil {
			return err
		}
	}
	if kind == pageInterior {
		return d.walk(binary.BigEndian.Uint32(data[at+8:]), depth+1, fn)
	}
	return nil
}

// cell reads a row.
func (d *database) cell(data []byte, fn func([]any) error) error {
	size, data, ok := varint(data)
	if d.rows--; !ok || size > maxRow || d.rows < 0 {
		return errDamaged
	}
	if _, data, ok = varint(data); !ok { // the key
		return errDamaged
	}
	payload, err := d.payload(data, int(size))
	if err != nil {
		return err
	}
	row, err := record(payload)
	if err != nil {
		return err
	}
	return fn(row)
}

// payload returns what of a row is in its page, and goes on in pages of its own.
func (d *database) payload(data []byte, size int) ([]byte, error) {
	local := size
	if most := d.usable - 35; size > most {
		least := (d.usable-12)*32/255 - 23
		if local = least + (size-least)%(d.usable-4); local > most {
			local = least
		}
	}
	if local > len(data) {
		return nil, errDamaged
	}
	if local == size {
		return data[:size], nil
	}
	if local+4 > len(data) {
		return nil, errDamaged
	}
	out := append([]byte(nil), data[:local]...)
	for next := binary.BigEndian.Uint32(data[local:]); len(out) < size; {
		page, err := d.read(next)
		if err != nil {
			return nil, err
		}
		next = binary.BigEndian.Uint32(page)
		out = append(out, page[4:min(d.usable, 4+size-len(out))]...)
	}
	return out, nil
}

// record returns the values of a row.
func record(data []byte) ([]any, error) {
	size, rest, ok := varint(data)
	if !ok || size > uint64(len(data)) || int(size) < len(data)-len(rest) {
		return nil, errDamaged
	}
	header, body := data[len(data)-len(rest):size], data[size:]
	var row []any
	for len(header) > 0 {
		var kind uint64
		if kind, header, ok = varint(header); !ok || len(row) == maxColumns {
			return nil, errDamaged
		}
		length := valueSize(kind)
		if length > uint64(len(body)) {
			return nil, errDamaged
		}
		row = append(row, value(kind, body[:length]))
		body = body[length:]
	}
	return row, nil
}

// valueSize returns how many bytes a value of a kind has.
func valueSize(kind uint64) uint64 {
	switch {
	case kind >= 12:
		return (kind - 12) / 2
	case kind <= 4:
		return kind
	case kind == 5:
		return 6
	case kind == 6 || kind == 7:
		return 8
	}
	return 0
}

func value(kind uint64, data []byte) any {
	switch {
	case kind >= 12:
		return data
	case kind == 8 || kind == 9:
		return int64(kind - 8)
	case kind >= 1 && kind <= 6:
		var n int64
		if data[0]&0x80 != 0 {
			n = -1
		}
		for _, b := range data {
			n = n<<8 | int64(b)
		}
		return n
	}
	return nil
}

// varint reads a number of up to nine bytes.
func varint(data []byte) (n uint64, rest []byte, ok bool) {
	for i, b := range data {
		if i == 8 {
			return n<<8 | uint64(b), data[9:], true
		}
		n = n<<7 | uint64(b&0x7f)
		if b&0x80 == 0 {
			return n, data[i+1:], true
		}
	}
	return 0, nil, false
}
