package session

import (
	"errors"
	"io"
	"slices"
)

// Fault is an error of one session: its client was asked and did not serve. It is about the builds
// of that client, not about what was asked for; another client may serve. The text is that of Err.
type Fault struct {
	// ID is the session's.
	ID  string
	Err error
}

// Error returns the text of what happened.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns what happened.
func (f *Fault) Unwrap() error { return f.Err }

// refusal is the error of several sessions. It is what the first fault is; the others are found by
// Faults.
type refusal struct{ faults []*Fault }

func (r *refusal) Error() string { return r.faults[0].Error() }
func (r *refusal) Unwrap() error { return r.faults[0] }

// Refuse returns the error of sessions of which none served; nil without any. It has the text of the
// first that answered: that says more than that another one is gone.
func Refuse(faults ...*Fault) error {
	gone := func(f *Fault) bool { return errors.Is(f.Err, ErrLost) || errors.Is(f.Err, ErrNoSession) }
	if i := slices.IndexFunc(faults, func(f *Fault) bool { return !gone(f) }); i > 0 {
		faults = slices.Concat(faults[i:i+1], faults[:i], faults[i+1:])
	}
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return faults[0]
	}
	return &refusal{faults}
}

// Faults returns what of an error is of which session, one fault for each session. The first one is
// what the error's text tells of; none means that the error is of no session.
func Faults(err error) []*Fault {
	var all []*Fault
	collect(err, func(f *Fault) {
		if !slices.ContainsFunc(all, func(g *Fault) bool { return g.ID == f.ID }) {
			all = append(all, f)
		}
	})
	return all
}

func collect(err error, add func(*Fault)) {
	switch e := err.(type) { //nolint:errorlint // it walks the chain itself
	case *refusal:
		for _, f := range e.faults {
			add(f)
		}
	case *Fault:
		add(e)
	case *LostError:
		add(&Fault{e.ID, e})
	case *NotActiveError:
		add(&Fault{e.ID, e})
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			collect(inner, add)
		}
	case interface{ Unwrap() error }:
		collect(e.Unwrap(), add)
	}
}

// Except returns what remains of err without the faults that are nothing to who asked; nil if that
// is nothing. An error without faults remains.
func Except(err error, harmless func(error) bool) error {
	faults := Faults(err)
	rest := slices.DeleteFunc(slices.Clone(faults), func(f *Fault) bool { return harmless(f.Err) })
	if len(rest) == len(faults) {
		return err
	}
	return Refuse(rest...)
}

// BlameAll returns an error as one of each of the sessions, or as it is without any.
func BlameAll(ids []string, err error) error {
	if err == nil || len(ids) == 0 {
		return err
	}
	faults := make([]*Fault, len(ids))
	for i, id := range ids {
		faults[i] = &Fault{id, err}
	}
	return Refuse(faults...)
}

// Blame returns an error as one of the session, unless it is one already. Errors of calls to the
// client are; this is for what was made of its answers.
func (c *Caller) Blame(err error) error { return blame(c.id, err) }

func blame(id string, err error) error {
	if err == nil || err == io.EOF || len(Faults(err)) > 0 {
		return err
	}
	return &Fault{id, err}
}
