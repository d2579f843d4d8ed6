package catalog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Tags and types of the headers of rpm, see https://rpm-software-management.github.io/rpm/manual/tags.html.
const (
	tagName      = 1000
	tagVersion   = 1001
	tagRelease   = 1002
	tagEpoch     = 1003
	tagLicense   = 1014
	tagArch      = 1022
	tagSourceRPM = 1044

	typeInt32  = 4
	typeString = 6

	entrySize = 16
)

// publicKey is the name of the keys that rpm keeps among packages.
const publicKey = "gpg-pubkey"

// parseRPM reads a database of rpm in SQLite, which rpm writes since 4.16.
func parseRPM(f *io.SectionReader, add func(Package) error) error {
	db, err := openDatabase(f, f.Size())
	if err != nil {
		return err
	}
	found := headers{add: add}
	err = db.table("Packages", func(row []any) error {
		if len(row) < 2 {
			return errDamaged
		}
		blob, _ := row[1].([]byte)
		return found.take(blob)
	})
	return cmp.Or(err, found.damaged)
}

// unwritten says of what rpm has not yet written to its database that it is not read.
func unwritten(f *io.SectionReader, _ func(Package) error) error {
	if f.Size() == 0 {
		return nil
	}
	return errors.New("what rpm has installed last stands in a log beside its database, which is not read")
}

func errNotRPM(form string) error { return fmt.Errorf("not a database of rpm in the form of %s", form) }

// headers hands on the packages of headers. Those that are damaged are passed over.
type headers struct {
	add func(Package) error
	// damaged is what was wrong first.
	damaged error
}

func (h *headers) damage(err error) {
	if h.damaged == nil {
		h.damaged = err
	}
}

// take fails as add does.
func (h *headers) take(blob []byte) error {
	p, err := rpmPackage(blob)
	if err != nil {
		h.damage(err)
		return nil
	}
	if p.Name == publicKey {
		return nil
	}
	return h.add(p)
}

// rpmPackage reads the header of a package.
func rpmPackage(blob []byte) (Package, error) {
	h, err := rpmHeader(blob)
	if err != nil {
		return Package{}, err
	}
	p := Package{Type: RPM, Name: h.text(tagName), Version: h.text(tagVersion), Arch: h.text(tagArch), License: h.text(tagLicense)}
	if release := h.text(tagRelease); release != "" {
		p.Version += "-" + release
	}
	if n, ok := h.number(tagEpoch); ok {
		p.Epoch = strconv.FormatUint(uint64(n), 10)
	}
	p.Source = strings.TrimSuffix(h.text(tagSourceRPM), ".rpm")
	return p, nil
}

// header is what is looked at of the header of a package.
type header struct {
	index, data []byte
}

func rpmHeader(blob []byte) (header, error) {
	if len(blob) < 8 {
		return header{}, errors.New("a package has no header")
	}
	entries, size := uint64(binary.BigEndian.Uint32(blob)), uint64(binary.BigEndian.Uint32(blob[4:]))
	if 8+entries*entrySize+size > uint64(len(blob)) {
		return header{}, errors.New("the header of a package is cut off")
	}
	at := 8 + entries*entrySize
	return header{index: blob[8:at], data: blob[at : at+size]}, nil
}

// value returns the data from where a value begins; nil if there is none of the type.
func (h header) value(tag, typ uint32) []byte {
	for e := h.index; len(e) >= entrySize; e = e[entrySize:] {
		if binary.BigEndian.Uint32(e) != tag || binary.BigEndian.Uint32(e[4:]) != typ {
			continue
		}
		if at := binary.BigEndian.Uint32(e[8:]); uint64(at) < uint64(len(h.data)) {
			return h.data[at:]
		}
	}
	return nil
}

func (h header) text(tag uint32) string {
	data := h.value(tag, typeString)
	end := bytes.IndexByte(data, 0)
	if end < 0 {
		return ""
	}
	return string(data[:end])
}

func (h header) number(tag uint32) (uint32, bool) {
	data := h.value(tag, typeInt32)
	if len(data) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(data), true
}
