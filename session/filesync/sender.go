package filesync

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// sendOpt configures a sender.
type sendOpt struct {
	// open opens a file by the path in its description; it is asked only for files of the walk.
	open func(path string) (io.ReadCloser, error)
	// tokens lets change tokens pass to the receiver.
	tokens   bool
	chunk    int
	progress Progress
}

// fileReaders is how many files are read at once.
const fileReaders = 4

// sender describes the entries of a tree and sends the files that are asked for.
type sender struct {
	stream *lockedStream
	fs     fsutil.FS
	opt    sendOpt
	moved  atomic.Int64

	mu     sync.Mutex
	wake   *sync.Cond // of the readers
	table  fileTable
	queue  []uint32 // asked for, not taken by a reader
	busy   int      // taken, not sent
	walked bool
	over   bool

	wg sync.WaitGroup
}

func newSender(s stream, fs fsutil.FS, opt sendOpt) *sender {
	snd := &sender{stream: &lockedStream{stream: s}, fs: fs, opt: opt}
	snd.wake = sync.NewCond(&snd.mu)
	if opt.open == nil {
		snd.opt.open = fs.Open
	}
	if opt.chunk == 0 {
		snd.opt.chunk = plainChunk
	}
	return snd
}

// run sends until the receiver has all that it wants. When it returns an error, goroutines may
// still wait on the stream: they end with the stream's context, and wait waits for them.
func (s *sender) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	defer s.end()

	results := make(chan error, fileReaders+2)
	finished := make(chan struct{})
	s.spawn(results, func() error { return unlessBroken(s.walk(ctx)) })
	for range fileReaders {
		s.spawn(results, func() error { return unlessBroken(s.readFiles()) })
	}
	s.spawn(results, func() error {
		err := s.serveRequests()
		if err == nil {
			close(finished)
		}
		return err
	})

	reporter := startProgress(s.opt.progress, &s.moved)
	defer reporter()
	for {
		select {
		case <-finished:
			s.end()
			s.wg.Wait()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-results:
			if err != nil {
				var peer *PeerError
				if !errors.As(err, &peer) {
					s.stream.sendError(err)
				}
				return err
			}
		}
	}
}

// wait returns when all goroutines have ended, which takes the end of the stream.
func (s *sender) wait() { s.wg.Wait() }

func (s *sender) spawn(results chan<- error, fn func() error) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		results <- fn()
	}()
}

// unlessBroken leaves the reason that a stream can't be written to, which gRPC hides behind
// io.EOF, to the one who reads from it.
func unlessBroken(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// end lets the readers return.
func (s *sender) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.wake.Broadcast()
}

// walk describes all entries.
func (s *sender) walk(ctx context.Context) error {
	var id uint32
	links := map[string]string{} // first path of a link whose own first path was not sent
	err := s.fs.Walk(ctx, "", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		st, err := statOf(p, entry)
		if err != nil {
			return err
		}
		if hasContent(st) {
			s.mu.Lock()
			s.resolveLink(st, links)
			s.table.add(id, st.Path)
			s.mu.Unlock()
		}
		if !s.opt.tokens {
			setToken(st, nil)
		}
		id++
		packet := &types.Packet{Type: types.PACKET_STAT, Stat: st}
		s.moved.Add(packetSize(packet))
		return s.stream.SendMsg(packet)
	})
	if err != nil {
		return err
	}
	if err := s.stream.SendMsg(&types.Packet{Type: types.PACKET_STAT}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.walked = true
	return nil
}

// statOf returns the description of an entry, which may be changed, as it is on the wire.
func statOf(p string, entry fs.DirEntry) (*types.Stat, error) {
	info, err := entry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*types.Stat)
	if !ok {
		return nil, &fs.PathError{Op: "describe", Path: p, Err: errors.ErrUnsupported}
	}
	switch entry.(type) {
	case *fsutil.DirEntryInfo, dirEntry: // whose Info made it
	default:
		st = st.Clone()
	}
	st.Path = filepath.ToSlash(st.Path)
	if os.FileMode(st.Mode)&os.ModeSymlink != 0 || hasContent(st) {
		st.Linkname = filepath.ToSlash(st.Linkname)
	}
	return st, nil
}

// resolveLink lets a hard link name a path that is part of the transfer: if a filter has left its
// first path out, the first one that is sent takes that place and has the content.
func (s *sender) resolveLink(st *types.Stat, links map[string]string) {
	if st.Linkname == "" {
		return
	}
	if first, ok := links[st.Linkname]; ok {
		st.Linkname = first
	} else if !s.table.has(st.Linkname) {
		links[st.Linkname] = st.Path
		st.Linkname = ""
		return
	}
	st.Size = 0
}

// serveRequests reads until the receiver is done. It never waits for anything but the stream.
func (s *sender) serveRequests() error {
	for {
		var p types.Packet
		if err := s.stream.RecvMsg(&p); err != nil {
			if err == io.EOF {
				err = protocolErrorf("the receiver left before it was done")
			}
			return err
		}
		switch p.Type {
		case types.PACKET_REQ:
			s.mu.Lock()
			s.queue = append(s.queue, p.ID)
			s.wake.Signal()
			s.mu.Unlock()
		case types.PACKET_FIN:
			if !s.idle() {
				return protocolErrorf("the receiver was done before it had all it asked for")
			}
			err := s.stream.SendMsg(&types.Packet{Type: types.PACKET_FIN})
			if err == io.EOF {
				err = s.stream.RecvMsg(&p)
			}
			return err
		case types.PACKET_ERR:
			return &PeerError{Msg: string(p.Data)}
		default:
			return protocolErrorf("unexpected packet of type %d from the receiver", p.Type)
		}
	}
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.walked && s.busy == 0 && len(s.queue) == 0
}

// readFiles sends files as long as some are asked for.
func (s *sender) readFiles() error {
	buf := make([]byte, s.opt.chunk)
	for {
		id, p, err := s.take()
		if err != nil || p == "" {
			return err
		}
		if err := s.sendFile(id, p, buf); err != nil {
			return err
		}
	}
}

// take waits for a request; an empty path means that there will be no more.
func (s *sender) take() (uint32, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.over {
		s.wake.Wait()
	}
	if s.over {
		return 0, "", nil
	}
	id := s.queue[0]
	s.queue = s.queue[1:]
	p, ok := s.table.ask(id)
	if !ok {
		return 0, "", protocolErrorf("request for file %d, which is unknown or was asked for before", id)
	}
	s.busy++
	return id, p, nil
}

// sendFile sends the content of one file. A file that is gone since it was described is sent as
// empty, as other senders do; any other failure ends the transfer.
func (s *sender) sendFile(id uint32, p string, buf []byte) error {
	last := &types.Packet{Type: types.PACKET_DATA, ID: id}
	f, err := s.opt.open(filepath.FromSlash(p))
	if errors.Is(err, fs.ErrNotExist) {
		s.served()
		return s.stream.send(last)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	file, short := f.(*os.File) // whose short reads tell the end
	if short && s.opt.tokens {
		settle(s.stream.Context(), file)
	}
	for {
		n, err := readChunk(f, buf, short)
		if err != nil && err != io.EOF {
			return &fs.PathError{Op: "read", Path: p, Err: err}
		}
		done := err == io.EOF
		packets := make([]*types.Packet, 0, 2)
		var size int64
		if n > 0 {
			packets = append(packets, &types.Packet{Type: types.PACKET_DATA, ID: id, Data: buf[:n]})
			size = packetSize(packets[0])
		}
		if done {
			packets = append(packets, last)
			s.served()
		}
		if err := s.stream.send(packets...); err != nil {
			return err
		}
		s.moved.Add(size)
		if done {
			return nil
		}
	}
}

// settle waits until a change of the file would show in its change token.
func settle(ctx context.Context, f *os.File) {
	age := time.Since(changeTime(f))
	if age < 0 || age >= tokenGrace {
		return
	}
	timer := time.NewTimer(tokenGrace - age)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// served marks a file as sent, before the receiver can know that it has all.
func (s *sender) served() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
}

// readChunk fills buf; io.EOF comes with the last data.
func readChunk(r io.Reader, buf []byte, short bool) (int, error) {
	if short {
		n, err := r.Read(buf)
		if err == nil && n < len(buf) {
			err = io.EOF
		}
		return n, err
	}
	n, err := io.ReadFull(r, buf)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
