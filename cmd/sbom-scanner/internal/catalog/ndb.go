package catalog

import (
	"encoding/binary"
	"hash/adler32"
	"io"
)

// Facts of the form ndb, rpm's own, that SUSE uses: a header, pages of slots behind it, and blobs in
// blocks of 16 bytes, each with a head and a tail. Numbers are little endian.
const (
	ndbMagic     = "RpmP"
	ndbSlotMagic = "Slot"
	ndbHeadMagic = "BlbS"
	ndbTailMagic = "BlbE"
	// The first slots of the first page are the header: magic, version, generation, pages of slots.
	ndbHeader    = 32
	ndbSlotsPage = 4096
	// A slot is magic, number of the package, first block, blocks.
	ndbSlot = 16
	// A head is magic, number of the package, generation, length; a tail checksum, length, magic.
	ndbHead  = 16
	ndbTail  = 12
	ndbBlock = 16
	// maxSlotPages is how many pages of slots are read: for half a million packages.
	maxSlotPages = 2048
)

// parseNDB reads a database of rpm in the form ndb.
func parseNDB(f *io.SectionReader, add func(Package) error) error {
	if f.Size() == 0 {
		return nil
	}
	header := make([]byte, ndbHeader)
	if _, err := f.ReadAt(header, 0); err != nil || string(header[:4]) != ndbMagic || binary.LittleEndian.Uint32(header[4:]) != 0 {
		return errNotRPM("ndb")
	}
	pages := int64(binary.LittleEndian.Uint32(header[12:]))
	if pages < 1 || pages > maxSlotPages || pages*ndbSlotsPage > f.Size() {
		return errDamaged
	}
	slots := make([]byte, pages*ndbSlotsPage-ndbHeader)
	if _, err := f.ReadAt(slots, ndbHeader); err != nil {
		return errDamaged
	}
	found := headers{add: add}
	db := ndb{r: f, left: f.Size()}
	for ; len(slots) >= ndbSlot; slots = slots[ndbSlot:] {
		number := binary.LittleEndian.Uint32(slots[4:])
		if string(slots[:4]) != ndbSlotMagic {
			return errDamaged
		}
		if number == 0 {
			continue
		}
		blob, err := db.blob(number, int64(binary.LittleEndian.Uint32(slots[8:]))*ndbBlock)
		if err != nil {
			found.damage(err)
		} else if err := found.take(blob); err != nil {
			return err
		}
	}
	return found.damaged
}

// ndb reads blobs of a database in the form ndb.
type ndb struct {
	r io.ReaderAt
	// left is how much may still be read, in bytes: blobs do not overlap.
	left int64
}

// blob reads the header of a package at an offset.
func (d *ndb) blob(number uint32, at int64) ([]byte, error) {
	head := make([]byte, ndbHead)
	if _, err := d.r.ReadAt(head, at); err != nil {
		return nil, errDamaged
	}
	length := int64(binary.LittleEndian.Uint32(head[12:]))
	if string(head[:4]) != ndbHeadMagic || binary.LittleEndian.Uint32(head[4:]) != number {
		return nil, errDamaged
	}
	// The tail ends with the last block.
	space := (ndbHead + length + ndbTail + ndbBlock - 1) / ndbBlock * ndbBlock
	if space > min(maxRow, d.left) {
		return nil, errDamaged
	}
	d.left -= space
	data := make([]byte, space)
	if _, err := d.r.ReadAt(data, at); err != nil {
		return nil, errDamaged
	}
	tail := data[space-ndbTail:]
	if string(tail[8:]) != ndbTailMagic || binary.LittleEndian.Uint32(tail) != adler32.Checksum(data[:space-ndbTail]) {
		return nil, errDamaged
	}
	return data[ndbHead : ndbHead+length], nil
}
