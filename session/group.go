package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

// Any calls fn with the sessions of a group, one after the other, until one serves: sessions that
// are there first, then those that have still to appear, and those that join the group meanwhile.
// It goes on to the next session when the fault is the session's: it is lost or never appears, or
// its client answers with an error, or has not got what was asked for (NotFound, Unimplemented). If
// none serves, the error has the faults of all, see Faults. The context of fn ends with the session.
// A group without sessions gives an error that matches ErrNoSession.
func (m *Manager) Any(ctx context.Context, g Group, fn func(ctx context.Context, c *Caller) error) error {
	return m.any(ctx, g, fn, (*Caller).run)
}

// answerTime is how long a client may keep others waiting.
const answerTime = time.Minute

var errAnswerTime = status.New(codes.DeadlineExceeded, fmt.Sprintf("the client did not answer within %s", answerTime))

// Ask is Any for questions that a client may put to its user. It has all the time that it wants, as
// long as nobody else is there to ask.
func (m *Manager) Ask(ctx context.Context, g Group, fn func(ctx context.Context, c *Caller) error) error {
	asked := map[string]bool{}
	return m.any(ctx, g, fn, func(c *Caller, ctx context.Context, fn func(context.Context, *Caller) error) error {
		asked[c.id] = true
		limited, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go hurry(limited, g, maps.Clone(asked), cancel)
		err := c.run(limited, fn)
		if err != nil && ctx.Err() == nil && errors.Is(context.Cause(limited), errAnswerTime) {
			err = c.Blame(errAnswerTime)
		}
		return err
	})
}

// hurry ends ctx when a client has had its time and the group has somebody who was not asked.
func hurry(ctx context.Context, g Group, asked map[string]bool, end func(error)) {
	tick := time.NewTicker(answerTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if slices.ContainsFunc(g.SessionIDs(), func(id string) bool { return id != "" && !asked[id] }) {
			end(errAnswerTime)
			return
		}
	}
}

// run is how a session is used by any.
type run func(c *Caller, ctx context.Context, fn func(context.Context, *Caller) error) error

func (m *Manager) any(ctx context.Context, g Group, fn func(ctx context.Context, c *Caller) error, run run) error {
	tried := map[string]bool{}
	var faults []*Fault
	for {
		id, c, err := m.next(ctx, g, tried)
		switch {
		case errors.Is(err, errTriedAll):
			if len(faults) == 0 {
				return noSessionsError{}
			}
			return Refuse(faults...)
		case err == nil:
			err = run(c, ctx, fn)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || len(Faults(err)) == 0 && !otherMayServe(err) {
			return err
		}
		faults = append(faults, &Fault{id, err})
	}
}

var errTriedAll = errors.New("all sessions tried")

// next returns a session of g that was not tried, with its id, and marks it.
func (m *Manager) next(ctx context.Context, g Group, tried map[string]bool) (id string, c *Caller, err error) {
	var absent []string
	if g != nil {
		for _, id := range g.SessionIDs() {
			if id == "" || tried[id] {
				continue
			}
			if c, _ := m.lookup(id); c != nil {
				tried[id] = true
				return id, c, nil
			}
			absent = append(absent, id)
		}
	}
	if len(absent) == 0 {
		return "", nil, errTriedAll
	}
	tried[absent[0]] = true
	c, err = m.Get(ctx, absent[0])
	return absent[0], c, err
}

// run calls fn with a context that ends with the session.
func (c *Caller) run(ctx context.Context, fn func(context.Context, *Caller) error) error {
	ctx, free := c.conn.bind(ctx)
	defer free()
	return explain(c.life, fn(ctx, c))
}

// First returns the group of the session id, which may be empty, and after it the rest, which may be
// nil.
func First(id string, rest Group) Group { return first{id, rest} }

type first struct {
	id   string
	rest Group
}

func (f first) SessionIDs() []string {
	var ids []string
	if f.id != "" {
		ids = append(ids, f.id)
	}
	if f.rest != nil {
		ids = append(ids, f.rest.SessionIDs()...)
	}
	return ids
}
