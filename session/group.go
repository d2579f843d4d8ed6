package session

import (
	"context"
	"errors"
)

// Any calls fn with the sessions of a group, one after the other, until one serves: sessions that
// are there first, then those that have still to appear, and those that join the group meanwhile.
// It goes on to the next session when the session is lost or never appears, when the client is
// unavailable, and when it has not got what was asked for (NotFound, Unimplemented). The context
// of fn ends with the session. A group without sessions gives an error that matches ErrNoSession.
func (m *Manager) Any(ctx context.Context, g Group, fn func(ctx context.Context, c *Caller) error) error {
	tried := map[string]bool{}
	var failure error
	for {
		c, err := m.next(ctx, g, tried)
		switch {
		case errors.Is(err, errTriedAll):
			if failure == nil {
				return noSessionsError{}
			}
			return failure
		case err == nil:
			err = c.run(ctx, fn)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !otherMayServe(err) {
			return err
		}
		// What a client answered says more than that another one is gone.
		if failure == nil || errors.Is(failure, ErrLost) || errors.Is(failure, ErrNoSession) {
			failure = err
		}
	}
}

var errTriedAll = errors.New("all sessions tried")

// next returns a session of g that was not tried and marks it.
func (m *Manager) next(ctx context.Context, g Group, tried map[string]bool) (*Caller, error) {
	var absent []string
	if g != nil {
		for _, id := range g.SessionIDs() {
			if id == "" || tried[id] {
				continue
			}
			if c, _ := m.lookup(id); c != nil {
				tried[id] = true
				return c, nil
			}
			absent = append(absent, id)
		}
	}
	if len(absent) == 0 {
		return nil, errTriedAll
	}
	tried[absent[0]] = true
	return m.Get(ctx, absent[0])
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
