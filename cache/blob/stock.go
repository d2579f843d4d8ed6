package blob

import "sync"

// maxMemory is how many bytes the pieces of all layers take. The garbage collector leaves as much
// again before it runs; together that is what a daemon may take for layers of any size and number,
// 200 MiB, with a reserve for what is around.
const maxMemory = 84 << 20

// stock has pieces for all layers that are compressed at a time, and makes layers wait for those of
// each other. Who waits for a piece must not keep another one from being put back: then everybody gets
// theirs, however little there is. The zero value is ready for use.
type stock struct {
	mu sync.Mutex
	// limit is maxMemory if 0.
	limit int
	// taken is what pieces take that are in use or idle.
	taken int
	kinds map[kind]*supply
	// wishes are those that wait, the first come first.
	wishes []*wish
	// users are the layers that are compressed.
	users int
}

// supply is what there is of a kind.
type supply struct {
	all    int
	idle   []*piece
	wanted int // by wishes
}

// active reports whether pieces are in use or wanted.
func (of *supply) active() bool { return of.all > len(of.idle) || of.wanted > 0 }

type wish struct {
	kind  kind
	given chan *piece
}

// enter is called by whoever will get pieces.
func (s *stock) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
}

// leave is called by whoever has put all pieces back. The last one leaves nothing behind.
func (s *stock) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.kinds, s.taken = nil, 0
	}
}

// get returns an empty piece.
func (s *stock) get(k kind) *piece {
	w := &wish{k, make(chan *piece, 1)}
	s.mu.Lock()
	s.wishes = append(s.wishes, w)
	s.of(k).wanted++
	s.serve()
	s.mu.Unlock()
	return <-w.given
}

// put takes a piece back.
func (s *stock) put(p *piece) {
	p.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of(p.kind)
	of.idle = append(of.idle, p)
	s.serve()
}

func (s *stock) of(k kind) *supply {
	if s.kinds == nil {
		s.kinds = map[kind]*supply{}
	}
	if s.kinds[k] == nil {
		s.kinds[k] = &supply{}
	}
	return s.kinds[k]
}

// serve fulfils the wishes that it can. A wish that is for more than the share of its kind lets others
// go first: a piece of one kind is not given up for another one each time that it is put back.
func (s *stock) serve() {
	for i := 0; i < len(s.wishes); {
		w := s.wishes[i]
		due := s.due(w.kind)
		p := s.take(w.kind, due)
		switch {
		case p != nil:
			w.given <- p
			s.of(w.kind).wanted--
			s.wishes = append(s.wishes[:i], s.wishes[i+1:]...)
		case due:
			return // what is put back next is for this one
		default:
			i++
		}
	}
}

// due reports whether a kind has less than its share, or nothing.
func (s *stock) due(k kind) bool {
	of := s.of(k)
	return of.all == 0 || (of.all+1)*k.cost() <= s.share()
}

// share is what each active kind may have.
func (s *stock) share() int {
	n := 0
	for _, of := range s.kinds {
		if of.active() {
			n++
		}
	}
	return s.max() / max(n, 1)
}

func (s *stock) max() int {
	if s.limit == 0 {
		return maxMemory
	}
	return s.limit
}

// take returns the piece that was used last, whose memory is the warmest, or a new one if there is
// room for it; otherwise nil.
func (s *stock) take(k kind, due bool) *piece {
	of := s.of(k)
	if last := len(of.idle) - 1; last >= 0 {
		p := of.idle[last]
		of.idle[last], of.idle = nil, of.idle[:last]
		return p
	}
	keep := s.max()
	switch {
	case of.all == 0:
		keep = 0
	case due:
		keep = s.share()
	}
	for s.taken+k.cost() > s.max() {
		if !s.drop(keep) {
			return nil
		}
	}
	s.taken += k.cost()
	of.all++
	return &piece{kind: k}
}

// drop gives up an idle piece of a kind that is not used or that has more than it may keep.
func (s *stock) drop(keep int) bool {
	for k, of := range s.kinds {
		last := len(of.idle) - 1
		if last < 0 || of.active() && of.all*k.cost() <= keep {
			continue
		}
		of.idle[last], of.idle = nil, of.idle[:last]
		of.all--
		s.taken -= k.cost()
		return true
	}
	return false
}
