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
	// mapStat, if not nil, changes each description.
	mapStat func(*types.Stat)
	// tokens lets change tokens pass to the receiver.
	tokens   bool
	chunk    int
	progress Progress
}

// fileReaders is how many files are read at once.
const fileReaders = 4

// sender describes the entries of a tree and sends the files that are asked for.
type sender struct {
	stream *link
	fs     fsutil.FS
	opt    sendOpt
	moved  atomic.Int64

	mu     sync.Mutex
	wake   *sync.Cond // of the readers
	table  fileTable
	queue  []uint32  // asked for, not taken by a reader
	busy   int       // taken, not sent
	began  time.Time // when the walk had begun
	walked bool
	over   bool

	wg sync.WaitGroup
}

func newSender(s packetStream, fs fsutil.FS, opt sendOpt) *sender {
	snd := &sender{stream: &link{packetStream: s}, fs: fs, opt: opt}
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
	batch := statBatch{sender: s}
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
		if s.opt.mapStat != nil {
			s.opt.mapStat(st)
		}
		if hasContent(st) {
			s.mu.Lock()
			if s.began.IsZero() {
				s.began = time.Now()
			}
			s.resolveLink(st, links)
			s.table.add(id, st.Path)
			s.mu.Unlock()
		}
		if !s.opt.tokens {
			setToken(st, nil)
		}
		id++
		return batch.add(st)
	})
	if err != nil {
		return err
	}
	// Before the receiver knows, who may have all it wants and be done at once.
	s.mu.Lock()
	s.walked = true
	s.mu.Unlock()
	return batch.end()
}

// statBatch gathers descriptions until they are worth a message. The first messages are small, so
// that the receiver has something to do soon.
type statBatch struct {
	*sender
	packets []*types.Packet
	size    int
	limit   int
	began   time.Time
}

const (
	firstBatch = 2 << 10
	// batchDelay is how long a description may wait for others while the walk goes on.
	batchDelay = 5 * time.Millisecond
)

func (b *statBatch) add(st *types.Stat) error {
	p := &types.Packet{Type: types.PACKET_STAT, Stat: st}
	n := packetSize(p)
	b.moved.Add(n)
	if len(b.packets) == 0 {
		b.began = time.Now()
	}
	b.packets = append(b.packets, p)
	b.size += int(n)
	if b.size < min(max(b.limit, firstBatch), b.stream.batchSize()) && len(b.packets) < maxBatch && time.Since(b.began) < batchDelay {
		return nil
	}
	return b.flush()
}

func (b *statBatch) flush() error {
	err := b.stream.send(b.packets...)
	clear(b.packets)
	b.packets, b.limit, b.size = b.packets[:0], 2*b.size, 0
	return err
}

// end says that all entries have been described.
func (b *statBatch) end() error {
	b.packets = append(b.packets, &types.Packet{Type: types.PACKET_STAT})
	return b.flush()
}

// statOf returns the description of an entry, which may be changed, as it is on the wire.
func statOf(p string, entry fs.DirEntry) (*types.Stat, error) {
	if e, ok := entry.(dirEntry); ok {
		return slashed(e.st), nil
	}
	info, err := entry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*types.Stat)
	if !ok {
		return nil, &fs.PathError{Op: "describe", Path: p, Err: errors.ErrUnsupported}
	}
	if _, own := entry.(*fsutil.DirEntryInfo); !own { // whose Info made it
		st = st.Clone()
	}
	return slashed(st), nil
}

// slashed gives a description paths with slashes.
func slashed(st *types.Stat) *types.Stat {
	st.Path = filepath.ToSlash(st.Path)
	if os.FileMode(st.Mode)&os.ModeSymlink != 0 || hasContent(st) {
		st.Linkname = filepath.ToSlash(st.Linkname)
	}
	return st
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
		packets, err := s.stream.receivePackets()
		if err == io.EOF {
			return protocolErrorf("the receiver left before it was done")
		}
		if err != nil {
			return err
		}
		requests := len(packets)
		for i, p := range packets {
			if p.Type != types.PACKET_REQ {
				requests = i
				break
			}
		}
		s.request(packets[:requests])
		if requests == len(packets) {
			continue
		}
		switch p := packets[requests]; p.Type {
		case types.PACKET_FIN:
			return s.finish()
		case types.PACKET_ERR:
			return &PeerError{Msg: string(p.Data)}
		default:
			return protocolErrorf("unexpected packet of type %d from the receiver", p.Type)
		}
	}
}

// request lets the readers have the files that were asked for.
func (s *sender) request(packets []*types.Packet) {
	if len(packets) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range packets {
		s.queue = append(s.queue, p.ID)
	}
	s.wake.Broadcast()
}

// finish answers a receiver that is done.
func (s *sender) finish() error {
	if !s.idle() {
		return protocolErrorf("the receiver was done before it had all it asked for")
	}
	err := s.stream.send(&types.Packet{Type: types.PACKET_FIN})
	if err == io.EOF {
		_, err = s.stream.receivePackets()
	}
	return err
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.walked && s.busy == 0 && len(s.queue) == 0
}

// file is one that was asked for.
type file struct {
	id    uint32
	path  string
	began time.Time // when the walk had begun
}

// take waits for requests and returns up to n of them; none means that there will be no more.
func (s *sender) take(n int, files []file) ([]file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.over {
		s.wake.Wait()
	}
	if s.over {
		return files, nil
	}
	// What is there is shared with the other readers.
	n = min(n, 1+len(s.queue)/fileReaders)
	for _, id := range s.queue[:min(n, len(s.queue))] {
		p, ok := s.table.ask(id)
		if !ok {
			return nil, protocolErrorf("request for file %d, which is unknown or was asked for before", id)
		}
		files = append(files, file{id, p, s.began})
	}
	s.queue = s.queue[len(files):]
	s.busy += len(files)
	return files, nil
}

// served marks files as sent, before the receiver can know that it has all.
func (s *sender) served(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy -= n
}
