package filesync

import (
	"context"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// receiveOpt configures a receiver.
type receiveOpt struct {
	differ Differ
	// merge keeps what the destination has and the sender has not.
	merge bool
	prev  io.Reader
	// strangers distrusts times that may have been set, see ReceiveOpt.
	strangers bool
	next      io.Writer
	// metadata, if not nil, tells which entries are wanted with their content.
	metadata func(path string) (bool, error)
	mapStat  func(string, *types.Stat) bool
	hasher   Hasher
	notify   Notify
	progress Progress
}

// maxRequests bounds the files that are asked for and have not come. As many requests fit into
// the smallest flow control window of HTTP/2, so asking does not wait for a peer that is slow to
// read.
const maxRequests = 2048

// receiver brings a directory up to date with what a sender describes.
type receiver struct {
	stream *link
	tree   *tree
	opt    receiveOpt
	budget *budget
	moved  atomic.Int64
	failed chan error  // holds the first failure
	done   atomic.Bool // the sender was told that all is there

	// Used by the goroutine that reads.
	old      oldTree
	cur      *oldEntry
	racy     int64
	order    order
	state    *stateWriter
	meta     []byte
	nextID   uint32
	ended    bool // all entries have been described
	links    []linkEntry
	dirTimes []*types.Stat
	wanted   []*inFile // of the packets in hand
	writers  []chan []chunk
	turn     int // of the writers

	mu       sync.Mutex
	wake     *sync.Cond
	queue    []*inFile // wanted, not asked for
	inflight map[uint32]*inFile
	pending  int // wanted, not received
	all      bool
	over     bool
	notifyMu sync.Mutex

	wg sync.WaitGroup
}

type linkEntry struct {
	st   *types.Stat
	kind fsutil.ChangeKind
	// same says that the link is described as it was.
	same bool
}

func newReceiver(s packetStream, t *tree, opt receiveOpt) (*receiver, error) {
	r := &receiver{
		stream:   &link{packetStream: s},
		tree:     t,
		opt:      opt,
		budget:   newBudget(writeBudget),
		failed:   make(chan error, 1),
		state:    newStateWriter(opt.next, time.Now()),
		inflight: map[uint32]*inFile{},
	}
	r.wake = sync.NewCond(&r.mu)
	switch {
	case opt.merge:
		r.old = noTree{}
	case opt.prev != nil:
		old, err := newStateReader(opt.prev)
		if err != nil {
			return nil, err
		}
		r.old, r.racy = old, old.racy
		if opt.differ == DiffNone {
			r.racy = math.MinInt64
		}
	default:
		r.old = &diskTree{tree: t}
	}
	var err error
	r.cur, err = r.old.next(true)
	return r, err
}

// run receives until the destination is up to date. When it returns an error, goroutines may still
// wait on the stream: they end with the stream's context, and wait waits for them.
func (r *receiver) run(ctx context.Context) error {
	stopProgress := startProgress(r.opt.progress, &r.moved)
	defer stopProgress()

	for range fileWriters {
		in := make(chan []chunk, writeQueue)
		r.writers = append(r.writers, in)
		r.wg.Go(func() { r.writeFiles(in) })
	}
	reading := make(chan error, 1)
	r.wg.Go(func() {
		err := r.read()
		for _, w := range r.writers {
			close(w)
		}
		reading <- err
	})
	r.wg.Go(r.ask)
	completed := make(chan error, 1)
	r.wg.Go(func() {
		if r.await() {
			completed <- r.complete()
		}
	})

	err := r.outcome(ctx, reading, completed)
	r.end()
	if err != nil {
		var peer *PeerError
		if !errors.As(err, &peer) {
			r.stream.sendError(err)
		}
		return err
	}
	r.wg.Wait()
	return nil
}

// wait returns when all goroutines have ended, which takes the end of the stream.
func (r *receiver) wait() { r.wg.Wait() }

// outcome waits for the end of the transfer or the first failure.
func (r *receiver) outcome(ctx context.Context, reading, completed <-chan error) error {
	for {
		select {
		case err := <-r.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-completed:
			if err != nil {
				return err
			}
			r.done.Store(true)
			if err := r.stream.send(&types.Packet{Type: types.PACKET_FIN}); err != nil {
				return r.reason(err, reading)
			}
			completed = nil
		case err := <-reading:
			return err
		}
	}
}

// reason returns what reading says of a stream that can't be written to.
func (r *receiver) reason(err error, reading <-chan error) error {
	if err == io.EOF {
		return <-reading
	}
	return err
}

// fail ends the transfer; the first failure counts.
func (r *receiver) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// end lets the goroutines return.
func (r *receiver) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.wake.Broadcast()
	r.budget.close()
}

// read takes packets until the sender is done. It never waits for a packet to be written.
func (r *receiver) read() error {
	for {
		packets, err := r.stream.receivePackets()
		if err != nil {
			if err == io.EOF {
				err = protocolErrorf("the sender left before the transfer was done")
			}
			return err
		}
		done, err := r.take(packets)
		if err != nil {
			return err
		}
		if done {
			return r.drain()
		}
	}
}

// take takes packets; true says that the sender is done.
func (r *receiver) take(packets []*types.Packet) (done bool, err error) {
	for len(packets) > 0 {
		p := packets[0]
		taken := 1
		switch p.Type {
		case types.PACKET_STAT:
			err = r.entry(p.Stat)
		case types.PACKET_DATA:
			for taken < len(packets) && packets[taken].Type == types.PACKET_DATA {
				taken++
			}
			err = r.data(packets[:taken])
		case types.PACKET_FIN:
			if !r.done.Load() {
				err = protocolErrorf("the sender was done before the receiver")
			}
			done = true
		case types.PACKET_ERR:
			err = &PeerError{Sender: true, Msg: string(p.Data)}
		default:
			err = protocolErrorf("unexpected packet of type %d from the sender", p.Type)
		}
		if err != nil {
			return false, err
		}
		for _, p := range packets[:taken] {
			r.moved.Add(packetSize(p))
		}
		packets = packets[taken:]
	}
	r.want()
	return done, nil
}

// drain reads to the end of the stream after the sender's last packet.
func (r *receiver) drain() error {
	for {
		_, err := r.stream.receivePackets()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// data hands pieces of files to their writers. What comes together goes to one writer, as far as
// the files are new.
func (r *receiver) data(packets []*types.Packet) error {
	chunks := make([][]chunk, len(r.writers))
	size := 0
	if err := r.sort(packets, chunks, &size); err != nil {
		return err
	}
	if !r.budget.take(size) {
		return context.Canceled
	}
	for i, c := range chunks {
		if len(c) > 0 {
			r.writers[i] <- c
		}
	}
	return nil
}

// sort finds the files and writers of packets of data.
func (r *receiver) sort(packets []*types.Packet, chunks [][]chunk, size *int) error {
	r.turn = (r.turn + 1) % len(r.writers)
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := false
	for _, p := range packets {
		file := r.inflight[p.ID]
		if file == nil {
			return protocolErrorf("data of file %d, which was not asked for", p.ID)
		}
		if !file.begun {
			file.begun, file.writer = true, r.turn
		}
		*size += len(p.Data)
		to := &chunks[file.writer]
		if n := len(*to); len(p.Data) > 0 || n == 0 || (*to)[n-1].file != file {
			*to = append(*to, chunk{file: file, data: p.Data})
		}
		if len(p.Data) == 0 {
			(*to)[len(*to)-1].last = true
			delete(r.inflight, p.ID)
			ended = true
		}
	}
	if ended {
		r.wake.Broadcast()
	}
	return nil
}

// ask requests files, a bounded number at a time.
func (r *receiver) ask() {
	var requests []*types.Packet
	for {
		r.mu.Lock()
		for !r.over && !r.mayAsk() {
			r.wake.Wait()
		}
		if r.over {
			r.mu.Unlock()
			return
		}
		requests = requests[:0]
		for len(r.queue) > 0 && len(r.inflight) < maxRequests {
			file := r.queue[0]
			r.queue[0] = nil
			r.queue = r.queue[1:]
			r.inflight[file.id] = file
			requests = append(requests, &types.Packet{Type: types.PACKET_REQ, ID: file.id})
		}
		r.mu.Unlock()
		if err := r.stream.send(requests...); err != nil {
			if err != io.EOF { // the reader learns the reason
				r.fail(err)
			}
			return
		}
	}
}

// mayAsk reports whether there is something to ask for, and room for enough to be worth a message.
func (r *receiver) mayAsk() bool {
	return len(r.queue) > 0 && len(r.inflight)+min(len(r.queue), maxRequests/8) <= maxRequests
}

// want has the files asked for that were found to be wanted.
func (r *receiver) want() {
	if len(r.wanted) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending += len(r.wanted)
	r.queue = append(r.queue, r.wanted...)
	clear(r.wanted)
	r.wanted = r.wanted[:0]
	r.wake.Broadcast()
}

// received marks files as complete.
func (r *receiver) received(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending -= n
	if r.pending == 0 {
		r.wake.Broadcast()
	}
}

// await waits until all files are there. It returns false if the transfer has ended before.
func (r *receiver) await() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.over && (!r.all || r.pending > 0) {
		r.wake.Wait()
	}
	return !r.over
}

// notify reports a change. A nil h means that there is nothing to hash.
func (r *receiver) notify(kind fsutil.ChangeKind, st *types.Stat, h hash.Hash) error {
	if r.opt.notify == nil {
		return nil
	}
	r.notifyMu.Lock()
	defer r.notifyMu.Unlock()
	return r.opt.notify(kind, st.Path, st, digestOf(h))
}

// complete does what has to wait for all content: hard links and the times of directories.
func (r *receiver) complete() error {
	for _, l := range r.links {
		if err := r.tree.link(l.st); err != nil {
			return err
		}
		if l.same {
			continue
		}
		if err := r.notifyLink(l); err != nil {
			return err
		}
	}
	for _, st := range r.dirTimes {
		if err := r.tree.finishDir(st); err != nil {
			return err
		}
	}
	if r.opt.metadata != nil {
		if err := r.writeMetadata(); err != nil {
			return err
		}
	}
	return r.state.finish()
}

// notifyLink reports a hard link, with the hash of the file that it is.
func (r *receiver) notifyLink(l linkEntry) error {
	if r.opt.notify == nil {
		return nil
	}
	var h hash.Hash
	if r.opt.hasher != nil {
		f, err := r.tree.root.Open(l.st.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		st := l.st.Clone()
		st.Linkname, st.Size = "", info.Size()
		if h, err = r.opt.hasher(st); err != nil {
			return err
		}
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
	}
	return r.notify(l.kind, l.st, h)
}

// writeMetadata leaves the descriptions of all entries in the destination.
func (r *receiver) writeMetadata() error {
	if err := r.tree.remove(MetadataPath); err != nil {
		return err
	}
	f, err := r.tree.root.OpenFile(MetadataPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(r.meta)
	return errors.Join(err, f.Close())
}

// appendMetadata adds a description to the file of metadata.
func (r *receiver) appendMetadata(st *types.Stat) error {
	n := st.SizeVT()
	r.meta = binary.LittleEndian.AppendUint32(r.meta, uint32(n))
	start := len(r.meta)
	r.meta = append(r.meta, make([]byte, n)...)
	_, err := st.MarshalToSizedBufferVT(r.meta[start:])
	return err
}
