package catalog

import (
	"encoding/binary"
	"errors"
	"io"
)

// Facts of a hash of Berkeley DB: pages of one size, of which the first describes the others. Those with
// entries hold keys and values in turn; values that are too large for a page are chains of pages of
// their own. Numbers have the byte order of the machine that wrote them. See
// https://docs.oracle.com/cd/E17276_01/html/programmer_reference/.
const (
	bdbHashMagic = 0x061561
	bdbMeta      = 512 // what is read of the first page, in bytes

	// Kinds of pages.
	bdbOverflow = 7
	bdbHashMeta = 8
	bdbUnsorted = 2 // before 4.6
	bdbHash     = 13

	// bdbHeader is the head of a page: 8 bytes for logs, its number, the one before, the one behind,
	// how many entries it has, where free space ends or how much of an overflow page is used, level, kind.
	bdbHeader = 26

	// Kinds of values.
	bdbInline  = 1
	bdbOffPage = 3
	// bdbOffPageSize is a value of a kind and, in 4 bytes each, its first page and its length.
	bdbOffPageSize = 12
)

// berkeley reads a hash of Berkeley DB.
type berkeley struct {
	r     io.ReaderAt
	order binary.ByteOrder
	// page is the size of a page in bytes, pages is how many there are.
	page, pages int64
	// overflows is how many pages of large values may still be read: none belongs to two.
	overflows int64
}

// parseBDB reads a database of rpm in Berkeley DB, which rpm wrote before 4.16.
func parseBDB(f *io.SectionReader, add func(Package) error) error {
	if f.Size() == 0 {
		return nil
	}
	db, err := openBerkeley(f, f.Size())
	if err != nil {
		return err
	}
	found := headers{add: add}
	for number := int64(1); number < db.pages; number++ {
		page, err := db.read(number)
		if err != nil {
			return err
		}
		if kind := page[25]; kind != bdbHash && kind != bdbUnsorted {
			continue
		}
		err = db.entries(page, func(key, value []byte) error {
			blob, err := db.value(value)
			if err != nil {
				found.damage(err)
				return nil
			}
			// The number 0 is not a package but the last number.
			if string(key) == "\x01\x00\x00\x00\x00" {
				return nil
			}
			return found.take(blob)
		})
		if err != nil {
			return err
		}
	}
	return found.damaged
}

func openBerkeley(r io.ReaderAt, size int64) (*berkeley, error) {
	meta := make([]byte, bdbMeta)
	if _, err := r.ReadAt(meta, 0); err != nil {
		return nil, errNotRPM("Berkeley DB")
	}
	db := &berkeley{r: r, order: binary.LittleEndian}
	if binary.BigEndian.Uint32(meta[12:]) == bdbHashMagic {
		db.order = binary.BigEndian
	}
	if db.order.Uint32(meta[12:]) != bdbHashMagic || meta[25] != bdbHashMeta {
		return nil, errNotRPM("Berkeley DB")
	}
	if encrypted, flags := meta[24], meta[26]; encrypted != 0 || flags&1 != 0 {
		return nil, errors.New("databases with encrypted or summed pages are not read")
	}
	db.page = int64(db.order.Uint32(meta[20:]))
	if db.page < 512 || db.page > 1<<16 || db.page&(db.page-1) != 0 {
		return nil, errDamaged
	}
	db.pages = size / db.page
	db.overflows = db.pages
	return db, nil
}

func (b *berkeley) read(number int64) ([]byte, error) {
	if number < 1 || number >= b.pages {
		return nil, errDamaged
	}
	page := make([]byte, b.page)
	if _, err := b.r.ReadAt(page, number*b.page); err != nil {
		return nil, errDamaged
	}
	return page, nil
}

// entries calls fn for the pairs of a page, each part with its kind in front. They lie one before the
// other, from the end of the page.
func (b *berkeley) entries(page []byte, fn func(key, value []byte) error) error {
	count := int(b.order.Uint16(page[20:]))
	if bdbHeader+2*count > len(page) || count%2 != 0 {
		return errDamaged
	}
	end := len(page)
	var key []byte
	for i := range count {
		at := int(b.order.Uint16(page[bdbHeader+2*i:]))
		if at < bdbHeader+2*count || at >= end {
			return errDamaged
		}
		part := page[at:end]
		end = at
		if i%2 == 0 {
			key = part
			continue
		}
		if err := fn(key, part); err != nil {
			return err
		}
	}
	return nil
}

// value returns a value, from wherever it is.
func (b *berkeley) value(part []byte) ([]byte, error) {
	switch {
	case part[0] == bdbInline:
		return part[1:], nil
	case part[0] != bdbOffPage || len(part) < bdbOffPageSize:
		return nil, errDamaged
	}
	next, length := int64(b.order.Uint32(part[4:])), int64(b.order.Uint32(part[8:]))
	if length > maxRow {
		return nil, errDamaged
	}
	var out []byte
	for int64(len(out)) < length {
		if b.overflows--; b.overflows < 0 {
			return nil, errDamaged
		}
		page, err := b.read(next)
		if err != nil || page[25] != bdbOverflow {
			return nil, errDamaged
		}
		used := int(b.order.Uint16(page[22:]))
		if bdbHeader+used > len(page) || used == 0 || int64(len(out)+used) > length {
			return nil, errDamaged
		}
		out = append(out, page[bdbHeader:bdbHeader+used]...)
		next = int64(b.order.Uint32(page[16:]))
	}
	return out, nil
}
