package key

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
)

// Store is the memory of keys. Methods may be called concurrently. What it can't read it treats
// as absent: a fault of the disk costs cache hits, not builds.
type Store struct {
	t *table
	// mu makes reading and then writing one step.
	mu sync.Mutex
}

// Open opens the store in the file path, made if it is not there. A damaged file is set aside.
func Open(path string) (*Store, error) {
	t, err := openTable(path)
	if err != nil {
		return nil, err
	}
	return &Store{t: t}, nil
}

// Run writes to the disk, grouped, until ctx ends. Without it writes happen on Close.
func (s *Store) Run(ctx context.Context) { s.t.run(ctx) }

// Pending tells whether a crash would lose something: Run has yet to write it.
func (s *Store) Pending() bool { return s.t.pending() }

// Flush writes at once what Run would write in a moment.
func (s *Store) Flush() { s.t.flush() }

// Close writes what is left. No method may be called afterwards, except Close.
func (s *Store) Close() error { return s.t.close() }

// Find returns the keys that op leads to from its inputs, which is a slice of alternatives for
// each input, at least one input and one alternative each. Keys that were found by some of the
// alternatives are linked from all.
func (s *Store) Find(op Op, inputs [][]Alt) []ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.inputs = len(inputs)
	return s.find(op, inputs)
}

func (s *Store) find(op Op, inputs [][]Alt) []ID {
	var found []ID
	for n, alts := range inputs {
		var reached []ID
		for _, alt := range alts {
			for _, id := range s.targets(op, n, alt) {
				if !slices.Contains(reached, id) && (n == 0 || slices.Contains(found, id)) {
					reached = append(reached, id)
				}
			}
		}
		if found = reached; len(found) == 0 {
			return nil
		}
	}
	for _, id := range found {
		s.link(op, id, inputs)
	}
	return found
}

// Save returns the key that op leads to from its inputs, made if there is none.
func (s *Store) Save(op Op, inputs [][]Alt) ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.inputs = len(inputs)
	if found := s.find(op, inputs); len(found) > 0 {
		return found[0]
	}
	id := newID()
	s.putRecord(id, &record{op: op})
	s.link(op, id, inputs)
	return id
}

// link adds the links to id that are missing.
func (s *Store) link(op Op, id ID, inputs [][]Alt) {
	rec := s.record(id)
	// There may be as many links as inputs.
	known := make(map[Link]struct{}, max(len(rec.links), len(inputs)))
	for _, l := range rec.links {
		known[l] = struct{}{}
	}
	changed := false
	for n, alts := range inputs {
		for _, alt := range alts {
			l := Link{Input: n, Alt: alt}
			if _, ok := known[l]; ok {
				continue
			}
			known[l] = struct{}{}
			targets := s.targets(op, n, alt)
			if !slices.Contains(targets, id) {
				s.t.put(linksBucket, linkKey(op, n, alt), encodeIDs(append(targets, id)))
			}
			parent := s.record(alt.Key)
			parent.children++
			s.putRecord(alt.Key, parent)
			rec.links = append(rec.links, l)
			changed = true
		}
	}
	if changed {
		s.putRecord(id, rec)
	}
}

// Results returns the results of a key, newest first.
func (s *Store) Results(id ID) []Result {
	raw, err := s.t.get(resultsBucket, string(id[:]))
	if err != nil {
		return nil
	}
	rs, err := decodeResults(raw)
	if err != nil {
		return nil
	}
	return rs
}

// maxResults bounds how many results a key keeps; older ones stay in the cache until pruned, but
// nobody would choose them.
const maxResults = 4

// AddResult stores a result of a key, as its newest. A result of the same id is replaced.
func (s *Store) AddResult(id ID, r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs := slices.DeleteFunc(s.Results(id), func(old Result) bool { return old.ID == r.ID })
	rs = slices.Insert(rs, 0, r)
	if len(rs) > maxResults {
		for _, old := range rs[maxResults:] {
			s.disown(old.ID, id)
		}
		rs = rs[:maxResults]
	}
	s.t.put(resultsBucket, string(id[:]), encodeResults(rs))
	if r.ID == "" {
		return
	}
	if owners := s.owners(r.ID); !slices.Contains(owners, id) {
		s.t.put(ownersBucket, r.ID, encodeIDs(append(owners, id)))
	}
}

// DropResults forgets results whose cache records have gone, and the keys that lead nowhere then.
func (s *Store) DropResults(results []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		owners := s.owners(r)
		if len(owners) == 0 {
			continue
		}
		for _, id := range owners {
			rs := slices.DeleteFunc(s.Results(id), func(old Result) bool { return old.ID == r })
			s.t.put(resultsBucket, string(id[:]), encodeResults(rs))
			if len(rs) == 0 {
				s.collect(id)
			}
		}
		s.t.put(ownersBucket, r, nil)
	}
}

// Parts returns what a key consists of. ok is false if the key is unknown or a root.
func (s *Store) Parts(id ID) (p Parts, ok bool) {
	rec := s.record(id)
	if len(rec.links) == 0 {
		return Parts{}, false
	}
	return Parts{Op: rec.op, Links: rec.links}, true
}

// collect drops a key that has neither results nor children, and its parents that become such.
func (s *Store) collect(id ID) {
	todo := []ID{id}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		rec := s.record(id)
		if rec.children > 0 || len(s.Results(id)) > 0 {
			continue
		}
		for _, l := range rec.links {
			targets := slices.DeleteFunc(s.targets(rec.op, l.Input, l.Alt), func(t ID) bool { return t == id })
			s.t.put(linksBucket, linkKey(rec.op, l.Input, l.Alt), encodeIDs(targets))
			parent := s.record(l.Alt.Key)
			parent.children--
			s.putRecord(l.Alt.Key, parent)
			if parent.children <= 0 {
				todo = append(todo, l.Alt.Key)
			}
		}
		s.t.put(keysBucket, string(id[:]), nil)
	}
}

func (s *Store) disown(result string, id ID) {
	if result == "" {
		return
	}
	owners := slices.DeleteFunc(s.owners(result), func(o ID) bool { return o == id })
	s.t.put(ownersBucket, result, encodeIDs(owners))
}

func (s *Store) owners(result string) []ID {
	raw, err := s.t.get(ownersBucket, result)
	if err != nil {
		return nil
	}
	ids, err := decodeIDs(raw)
	if err != nil {
		return nil
	}
	return ids
}

func (s *Store) targets(op Op, input int, alt Alt) []ID {
	raw, err := s.t.get(linksBucket, linkKey(op, input, alt))
	if err != nil {
		return nil
	}
	ids, err := decodeIDs(raw)
	if err != nil {
		return nil
	}
	return ids
}

// record returns the record of a key; an empty one if there is none.
func (s *Store) record(id ID) *record {
	raw, err := s.t.get(keysBucket, string(id[:]))
	if err != nil || raw == nil {
		return &record{}
	}
	rec, err := decodeRecord(raw)
	if err != nil {
		return &record{}
	}
	return rec
}

func (s *Store) putRecord(id ID, rec *record) {
	s.t.put(keysBucket, string(id[:]), rec.encode())
}

// linkKey is a hash: selectors are long and op digests repeat.
func linkKey(op Op, input int, alt Alt) string {
	h := sha256.New()
	h.Write(alt.Key[:])
	b := appendString(nil, string(op.Digest))
	b = appendInt(b, int64(op.Output))
	b = appendInt(b, int64(op.inputs))
	b = appendInt(b, int64(input))
	h.Write(appendString(b, alt.Selector))
	return string(h.Sum(nil)[:20])
}
