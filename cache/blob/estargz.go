package blob

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"sync/atomic"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

// Parallel eStargz.
//
// A layer in this format is a row of gzip members: one for the headers that lead to the data of a
// file and one for every 4 MiB of it, then one with a table of contents and an empty one that says
// where the table is (github.com/containerd/stargz-snapshotter, docs/estargz.md). The library cuts
// the archive and makes the table. What it compresses with is ours: members depend on nothing but
// their content, so they are compressed beside each other. Where a member begins is known only when
// those before it are done; the library is told its number instead, and the table is corrected
// before it is written.
//
// The archive goes into the blob byte by byte, but what the blob unpacks to also has the table in
// it, as a file: its digest is not that of the archive.

// stargzWriter writes one eStargz blob.
type stargzWriter struct {
	pipe    *io.PipeWriter
	members *members
	done    chan struct{}
	err     error
	closed  bool
	// in is what was written, to be compared with what the library has made of it.
	in sum

	tocDigest, diffID digest.Digest
}

// errSparse is what comes of files with holes, which the library fills.
var errSparse = errors.New("the archive holds files in a form that estargz cannot keep")

// sum identifies bytes well enough to find faults of programs.
type sum struct {
	crc  uint32
	size int64
}

func (s *sum) add(p []byte) {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, p)
	s.size += int64(len(p))
}

func newStargzWriter(s *stock, w io.Writer, level int, tap hash.Hash) *stargzWriter {
	r, pipe := io.Pipe()
	z := &stargzWriter{pipe: pipe, members: newMembers(s, w, level, tap), done: make(chan struct{})}
	go func() {
		defer close(z.done)
		z.err = guarded(func() error { return z.run(r) })
		if z.err != nil {
			_ = z.members.end() // z.err says why
			r.CloseWithError(z.err)
		}
	}()
	return z
}

func (z *stargzWriter) run(r io.Reader) error {
	// Each member is one byte for the library, so that offsets are numbers of members.
	w := estargz.NewWriterWithCompressor(io.Discard, z.members)
	head := make([]byte, 3)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.Equal(head[:n], []byte{0x1f, 0x8b, 8}) {
		return errors.New("the archive is compressed") // the library would unpack it
	}
	if err := w.AppendTarLossLess(io.MultiReader(bytes.NewReader(head[:n]), r)); err != nil {
		return err
	}
	if z.tocDigest, err = w.Close(); err != nil {
		return err
	}
	z.diffID = digest.Digest(w.DiffID())
	if z.in != z.members.in {
		return errSparse
	}
	return nil
}

func (z *stargzWriter) Write(p []byte) (int, error) {
	if z.closed {
		return 0, errClosed
	}
	z.in.add(p)
	z.members.written.Add(int64(len(p)))
	return z.pipe.Write(p)
}

// Close writes the table of contents. It does not close the writer below.
func (z *stargzWriter) Close() error {
	if !z.closed {
		z.closed = true
		z.pipe.Close()
		<-z.done
	}
	return z.err
}

// annotations are what a lazy puller of the layer wants to know.
func (z *stargzWriter) annotations() map[string]string {
	return map[string]string{
		estargz.TOCJSONDigestAnnotation:         z.tocDigest.String(),
		estargz.StoreUncompressedSizeAnnotation: strconv.FormatInt(z.in.size+z.members.tocSize, 10),
	}
}

// memberSize is the most that a member holds, in bytes: what the library takes of a file at a time.
const memberSize = 4 << 20

// members is an estargz.Compressor.
type members struct {
	*ordered
	w     io.Writer
	level int
	// cur is the member that is being filled.
	cur *piece
	// written is the size of what the library was given, in what was put into members. There
	// cannot be more of the latter, unless the library fills holes, which have no bound.
	written atomic.Int64
	in      sum
	// offset is how much has been written to w, begins where each of the library's members begins.
	offset  int64
	begins  []int64
	tocSize int64
	ended   bool
}

func newMembers(s *stock, w io.Writer, level int, tap hash.Hash) *members {
	m := &members{w: w, level: level}
	m.ordered = newOrdered(s, ahead(), tap, func(p *piece) error {
		if !p.more {
			m.begins = append(m.begins, m.offset)
		}
		n, err := w.Write(p.out.Bytes())
		m.offset += int64(n)
		return err
	})
	return m
}

func (m *members) kind() kind { return kind{EStargz, m.level} }

// end waits until all members are written.
func (m *members) end() error {
	if m.ended {
		return m.failed()
	}
	m.ended = true
	if m.cur != nil {
		m.stock.put(m.cur)
		m.cur = nil
	}
	return m.close()
}

// member compresses a piece as a gzip member of its own.
func member(p *piece) error {
	p.reserve(len(gzipHeader) + 8)
	p.out.Write(gzipHeader)
	if err := deflate(p, true); err != nil {
		return err
	}
	p.out.Write(trailer(nil, crc32.ChecksumIEEE(p.in), int64(len(p.in))))
	return nil
}

// Writer begins a member.
func (m *members) Writer(w io.Writer) (estargz.WriteFlushCloser, error) {
	m.cur = m.stock.get(m.kind())
	return &memberWriter{m: m, w: w}, m.failed()
}

type memberWriter struct {
	m *members
	w io.Writer
}

// Write adds to the member. One that gets too large, as of a million links in a row, becomes several,
// which readers take for one.
func (w *memberWriter) Write(data []byte) (int, error) {
	m, n := w.m, len(data)
	for len(data) > 0 {
		if len(m.cur.in) == memberSize {
			if err := m.pass(); err != nil {
				return 0, err
			}
			m.cur = m.stock.get(m.kind())
			m.cur.more = true
		}
		take := min(memberSize-len(m.cur.in), len(data))
		m.cur.append(data[:take])
		data = data[take:]
	}
	return n, nil
}

// pass sends what is in the current member.
func (m *members) pass() error {
	m.in.add(m.cur.in)
	if m.in.size > m.written.Load() {
		return errSparse
	}
	p := m.cur
	m.cur = nil
	m.send(p, member)
	return m.failed()
}

// Flush has nothing to do: offsets are known when a member is closed.
func (w *memberWriter) Flush() error { return nil }

func (w *memberWriter) Close() error {
	if err := w.m.pass(); err != nil {
		return err
	}
	_, err := w.w.Write([]byte{0})
	return err
}

// WriteTOCAndFooter writes the table with the offsets that members really have.
func (m *members) WriteTOCAndFooter(_ io.Writer, _ int64, toc *estargz.JTOC, diffHash hash.Hash) (digest.Digest, error) {
	if err := m.end(); err != nil {
		return "", err
	}
	for _, e := range toc.Entries {
		if e.Offset > 0 { // never the first member, which begins with a header
			e.Offset = m.begins[e.Offset]
		}
	}
	doc, err := json.MarshalIndent(toc, "", "\t")
	if err != nil {
		return "", err
	}
	p := &piece{kind: m.kind()}
	if p.in, err = tocArchive(doc); err != nil {
		return "", err
	}
	diffHash.Write(p.in)
	m.tocSize = int64(len(p.in))
	if err := member(p); err != nil {
		return "", err
	}
	p.out.Write(stargzFooter(m.offset))
	if _, err := m.w.Write(p.out.Bytes()); err != nil {
		return "", err
	}
	return digest.FromBytes(doc), nil
}

func tocArchive(doc []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: estargz.TOCTarName, Size: int64(len(doc))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(doc); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// stargzFooter says where the table is, in an extra field of an empty member (docs/estargz.md,
// "eStargz Footer").
func stargzFooter(offset int64) []byte {
	field := fmt.Sprintf("%016xSTARGZ", offset)
	extra := binary.LittleEndian.AppendUint16([]byte("SG"), uint16(len(field)))
	return estargz.CreateGzipFooter(append(extra, field...))
}
