package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
)

// Event is what happens to a build or its record.
type Event = controlpb.BuildHistoryEvent

// maxQueue is how many builds may have changed that a listener has not been told of.
const maxQueue = 10_000

// errSlow is what a listener ends with that does not listen.
var errSlow = status.New(codes.ResourceExhausted, "too much has happened to builds since this was last read from")

// listener is a call of Listen.
type listener struct {
	ref string
	// queue has what is to be told, one entry for each build, in the order of its last change.
	queue []change
	full  bool
	// more holds a value when the queue is not empty.
	more chan struct{}
}

type change struct {
	kind controlpb.BuildHistoryEventType
	ref  string
}

// publish tells listeners. The caller holds mu.
func (s *Store) publish(kind controlpb.BuildHistoryEventType, ref string) {
	for l := range s.listeners {
		if l.ref == "" || l.ref == ref {
			l.add(change{kind, ref})
		}
	}
}

func (l *listener) add(c change) {
	// What happened to the same build before is told of by its state now. That it started is
	// news of its own.
	l.queue = slices.DeleteFunc(l.queue, func(o change) bool {
		return o.ref == c.ref && o.kind != controlpb.BuildHistoryEventType_STARTED
	})
	if len(l.queue) >= maxQueue {
		l.full = true
	} else {
		l.queue = append(l.queue, c)
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Listen calls send with the builds that are active, then with the records there are, unless req
// asks for active builds only, and then with what happens to any, until ctx ends; if req asks
// for an early exit it returns before that. Filters and the limit of req are for records.
func (s *Store) Listen(ctx context.Context, req *controlpb.BuildHistoryRequest, send func(*Event) error) error {
	if req.GetLimit() < 0 {
		return status.New(codes.InvalidArgument, fmt.Sprintf("invalid limit %d", req.GetLimit()))
	}
	match, err := parseFilters(req.GetFilter(), s.cfg.Now())
	if err != nil {
		return err
	}
	l, active, err := s.subscribe(ctx, req.GetRef())
	if err != nil {
		return err
	}
	defer s.unsubscribe(l)
	for _, rec := range active {
		if err := send(&Event{Type: controlpb.BuildHistoryEventType_STARTED, Record: rec}); err != nil {
			return err
		}
	}
	if !req.GetActiveOnly() {
		if err := s.sendRecords(req, match, send); err != nil {
			return err
		}
	}
	if req.GetEarlyExit() {
		return nil
	}
	return s.follow(ctx, l, send)
}

// subscribe adds a listener, and returns the builds that are active at this moment. Those that were about to
// become records when it was called are waited for.
func (s *Store) subscribe(ctx context.Context, ref string) (*listener, []*Record, error) {
	var err error
	if ref == "" {
		err = s.awaitAll(ctx)
	} else {
		err = s.await(ctx, ref)
	}
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var active []*Record
	for r, b := range s.active {
		if ref == "" || ref == r {
			active = append(active, b.rec)
		}
	}
	if _, doomed := s.doomed[ref]; doomed && len(active) == 0 {
		return nil, nil, &DeletedError{Ref: ref}
	}
	slices.SortFunc(active, byCreation)
	l := &listener{ref: ref, more: make(chan struct{}, 1)}
	s.listeners[l] = struct{}{}
	if ref != "" {
		s.watched[ref]++
	}
	return l, active, nil
}

func byCreation(a, b *Record) int {
	return cmp.Or(a.GetCreatedAt().AsTime().Compare(b.GetCreatedAt().AsTime()), cmp.Compare(a.GetRef(), b.GetRef()))
}

func (s *Store) unsubscribe(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if l.ref == "" {
		return
	}
	s.watched[l.ref]--
	if s.watched[l.ref] > 0 {
		return
	}
	delete(s.watched, l.ref)
	if _, ok := s.doomed[l.ref]; ok {
		delete(s.doomed, l.ref)
		s.table.delete(l.ref)
	}
}

// sendRecords sends the records that match, the oldest first; with a limit the newest are sent, and
// first.
func (s *Store) sendRecords(req *controlpb.BuildHistoryRequest, match func(*Record) bool, send func(*Event) error) error {
	refs, err := s.matching(req, match)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		rec := s.get(ref)
		if rec == nil {
			continue // deleted since
		}
		if err := send(&Event{Type: controlpb.BuildHistoryEventType_COMPLETE, Record: rec}); err != nil {
			return err
		}
	}
	return nil
}

// matching returns names and not records: a client may take its time to receive them.
func (s *Store) matching(req *controlpb.BuildHistoryRequest, match func(*Record) bool) ([]string, error) {
	if s.table == nil {
		return nil, nil
	}
	if ref := req.GetRef(); ref != "" {
		if rec := s.get(ref); rec == nil || !match(rec) {
			return nil, nil
		}
		return []string{ref}, nil
	}
	type found struct {
		ref     string
		created time.Time
	}
	var all []found
	err := s.table.each(func(rec *Record) {
		if match(rec) {
			all = append(all, found{rec.GetRef(), rec.GetCreatedAt().AsTime()})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of builds: %w", err)
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.ref, b.ref)) })
	if n := int(req.GetLimit()); n > 0 {
		slices.Reverse(all)
		all = all[:min(n, len(all))]
	}
	refs := make([]string, len(all))
	for i, f := range all {
		refs[i] = f.ref
	}
	return refs, nil
}

// follow sends what happens until ctx ends.
func (s *Store) follow(ctx context.Context, l *listener, send func(*Event) error) error {
	for {
		select {
		case <-l.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for {
			s.mu.Lock()
			if l.full {
				s.mu.Unlock()
				return errSlow
			}
			if len(l.queue) == 0 {
				s.mu.Unlock()
				break
			}
			e := s.event(l.queue[0])
			l.queue = l.queue[1:]
			s.mu.Unlock()
			if e == nil {
				continue
			}
			if err := send(e); err != nil {
				return err
			}
		}
	}
}

// event returns what is to be told of a change now, nil if that is nothing. The caller holds mu.
func (s *Store) event(c change) *Event {
	e := &Event{Type: c.kind, Record: &Record{Ref: c.ref}}
	switch c.kind {
	case controlpb.BuildHistoryEventType_STARTED:
		if b := s.active[c.ref]; b != nil {
			e.Record = b.rec
		}
	case controlpb.BuildHistoryEventType_COMPLETE:
		if e.Record = s.get(c.ref); e.Record == nil {
			return nil
		}
	}
	return e
}
