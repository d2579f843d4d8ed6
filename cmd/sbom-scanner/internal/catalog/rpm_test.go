package catalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// parsed returns the packages that a parser finds, by name.
func parsed(parse parser, data []byte) ([]Package, error) {
	var all []Package
	err := parse(io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), func(p Package) error {
		all = append(all, p)
		return nil
	})
	slices.SortFunc(all, compare)
	return all, err
}

func fixture(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(tb, err)
	return data
}

// installed are the packages of the databases below, of which a fifth was removed again.
var installed = []Package{
	{Type: RPM, Name: "epoch", Version: "2.5-3.fc40", Arch: "noarch", Epoch: "2", License: "GPL-2.0-or-later", Source: "epoch-2.5-3.fc40.src"},
	{Type: RPM, Name: "large", Version: "0.1-1", Arch: "noarch", License: "Apache-2.0 OR MIT", Source: "large-0.1-1.src"},
	{Type: RPM, Name: "last", Version: "9-9", Arch: "noarch", License: "BSD", Source: "last-9-9.src"},
	{Type: RPM, Name: "plain", Version: "1.0-1", Arch: "noarch", License: "MIT", Source: "plain-1.0-1.src"},
}

// The databases hold the same packages. Packages.db was written by rpm 4.18, configured with
// --enable-ndb; the other two by db_load of Berkeley DB 5.3, of the headers that rpm had written: one with
// pages of 8192 bytes, into which small packages fit, one with pages of 1024 bytes and the byte order of
// other machines.
var databases = []struct {
	name  string
	parse parser
}{{"Packages", parseBDB}, {"Packages.big-endian", parseBDB}, {"Packages.db", parseNDB}}

func TestPackagesAreTheSameInEveryFormOfRPM(t *testing.T) {
	for _, db := range databases {
		all, err := parsed(db.parse, fixture(t, db.name))
		require.NoError(t, err, db.name)
		require.Equal(t, installed, all, db.name)
	}
}

func TestEmptyDatabasesOfRPMHaveNoPackages(t *testing.T) {
	for _, db := range databases {
		all, err := parsed(db.parse, nil)
		require.NoError(t, err, db.name)
		require.Empty(t, all)
	}
}

func TestDamagedEntriesOfRPMHideNoOthers(t *testing.T) {
	ndb := fixture(t, "Packages.db")
	// Offset and number of the package in the first slot.
	blob := int(binary.LittleEndian.Uint32(ndb[ndbHeader+8:])) * ndbBlock
	for name, change := range map[string]func([]byte){
		"a byte of a blob":    func(b []byte) { b[blob+100] ^= 1 },
		"the length of one":   func(b []byte) { binary.LittleEndian.PutUint32(b[blob+12:], 1<<32-1) },
		"the number of one":   func(b []byte) { b[blob+4]++ },
		"where one is":        func(b []byte) { binary.LittleEndian.PutUint32(b[ndbHeader+8:], 1<<32-1) },
		"the magic of a blob": func(b []byte) { b[blob] = 'X' },
	} {
		data := slices.Clone(ndb)
		change(data)
		all, err := parsed(parseNDB, data)
		require.ErrorIs(t, err, errDamaged, name)
		require.Len(t, all, len(installed)-1, name)
	}

	bdb := fixture(t, "Packages")
	page := firstPage(t, bdb, 8192, bdbOverflow)
	for name, change := range map[string]func([]byte){
		"the kind of a page": func(b []byte) { b[page+25] = bdbHash + 1 },
		"the use of a page":  func(b []byte) { binary.LittleEndian.PutUint16(b[page+22:], 1<<16-1) },
		"an unused page":     func(b []byte) { binary.LittleEndian.PutUint16(b[page+22:], 0) },
		"a ring of pages": func(b []byte) {
			binary.LittleEndian.PutUint32(b[page+16:], uint32(page/8192))
			binary.LittleEndian.PutUint16(b[page+22:], 1)
		},
	} {
		data := slices.Clone(bdb)
		change(data)
		all, err := parsed(parseBDB, data)
		require.ErrorIs(t, err, errDamaged, name)
		require.Equal(t, slices.Delete(slices.Clone(installed), 1, 2), all, "%s: all but the large one", name)
	}
}

// firstPage returns where the first page of a kind begins.
func firstPage(tb testing.TB, data []byte, size int, kind byte) int {
	tb.Helper()
	for at := size; at < len(data); at += size {
		if data[at+25] == kind {
			return at
		}
	}
	require.Fail(tb, "there is no such page")
	return 0
}

func TestWhatIsNoDatabaseOfRPMIsRefused(t *testing.T) {
	changed := func(name string, at int, b ...byte) []byte {
		data := fixture(t, name)
		copy(data[at:], b)
		return data
	}
	for name, tc := range map[string]struct {
		parse parser
		data  []byte
		err   string
	}{
		"text for Berkeley DB": {parseBDB, bytes.Repeat([]byte("x"), 600), "not a database of rpm in the form of Berkeley DB"},
		"a short file":         {parseBDB, []byte("x"), "not a database of rpm in the form of Berkeley DB"},
		"encrypted pages":      {parseBDB, changed("Packages", 24, 1), "databases with encrypted or summed pages are not read"},
		"summed pages":         {parseBDB, changed("Packages", 26, 1), "databases with encrypted or summed pages are not read"},
		"pages of an odd size": {parseBDB, changed("Packages", 20, 1), "the database is damaged"},
		"text for ndb":         {parseNDB, bytes.Repeat([]byte("x"), 600), "not a database of rpm in the form of ndb"},
		"a later version":      {parseNDB, changed("Packages.db", 4, 1), "not a database of rpm in the form of ndb"},
		"slots that end early": {parseNDB, fixture(t, "Packages.db")[:4000], "the database is damaged"},
		"too many slots":       {parseNDB, changed("Packages.db", 12, 0xff, 0xff, 0xff, 0xff), "the database is damaged"},
		"no slots":             {parseNDB, changed("Packages.db", 12, 0), "the database is damaged"},
		"what is no slot":      {parseNDB, changed("Packages.db", ndbHeader, 'X'), "the database is damaged"},
	} {
		all, err := parsed(tc.parse, tc.data)
		require.EqualError(t, err, tc.err, name)
		require.Empty(t, all, name)
	}
}

// Blobs and pages that are used over and over, as often as there is room to name them, are not read as
// often: that would take hours.
func TestWhatDatabasesOfRPMHoldIsReadOnce(t *testing.T) {
	ndb := fixture(t, "Packages.db")
	first := ndb[ndbHeader : ndbHeader+ndbSlot]
	for at := ndbHeader; at < ndbSlotsPage; at += ndbSlot {
		copy(ndb[at:], first)
	}
	all, err := parsed(parseNDB, ndb)
	require.ErrorIs(t, err, errDamaged)
	require.NotEmpty(t, all)
	require.Less(t, len(all), len(ndb)/1000, "a package takes more than this")

	bdb := fixture(t, "Packages.big-endian")
	const size = 1024
	reads := &counter{r: bytes.NewReader(bdb)}
	db, err := openBerkeley(reads, int64(len(bdb)))
	require.NoError(t, err)
	page, err := db.read(int64(firstPage(t, bdb, size, bdbHash) / size))
	require.NoError(t, err)
	var values [][]byte
	require.NoError(t, db.entries(page, func(_, value []byte) error {
		values = append(values, value)
		return nil
	}))
	for range 1000 {
		for _, v := range values {
			if _, err = db.value(v); err != nil && !errors.Is(err, errDamaged) {
				require.NoError(t, err)
			}
		}
	}
	require.ErrorIs(t, err, errDamaged)
	require.LessOrEqual(t, reads.n, len(bdb)/size+2)
}

// counter counts how often is read.
type counter struct {
	r io.ReaderAt
	n int
}

func (c *counter) ReadAt(p []byte, at int64) (int, error) {
	c.n++
	return c.r.ReadAt(p, at)
}

func FuzzBerkeleyDB(f *testing.F) {
	little, big := fixture(f, "Packages"), fixture(f, "Packages.big-endian")
	fuzz(f, parseBDB, little, big, big[:len(big)/2])
}

func FuzzNDB(f *testing.F) {
	data := fixture(f, "Packages.db")
	fuzz(f, parseNDB, data, data[:ndbSlotsPage], data[:len(data)-1])
}
