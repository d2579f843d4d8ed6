package schedule

import (
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// Env is what the work of a node may use of those who wait for it. It is a session.Group and a
// blob.Finder, both live: they follow the Jobs that come and go.
type Env struct {
	Vertex *graph.Vertex
	Scope  event.Scope
	// Blobs takes the places that the node's lazy blobs can be fetched from.
	Blobs *blob.Sources

	mu   sync.Mutex
	jobs []*Job
	// founding is true for a source until it is known what it stands for: its first Job asks for
	// that alone, because the others have asked before they came. See Job.Load.
	founding bool
	// faults are why sessions could not serve, refused the Jobs that were told so, or that something
	// else about them is in the way. Both are passed over until their Jobs want the node again.
	faults  map[string]error
	refused map[*Job]error
	// resources are the limits of all who joined the node.
	resources *pb.LinuxResources
	note      any
}

var (
	_ session.Group = (*Env)(nil)
	_ blob.Finder   = (*Env)(nil)
)

// SessionIDs returns the sessions of the Jobs that hold the node now, but for those that could not
// serve.
func (e *Env) SessionIDs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for _, j := range e.asking() {
		for _, id := range j.sessions {
			if e.faults[id] == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// asking returns the Jobs whose clients may be asked, of a source that is not known yet the first one
// alone. The lock is held.
func (e *Env) asking() []*Job {
	var jobs []*Job
	for _, j := range e.jobs {
		if e.refused[j] == nil {
			jobs = append(jobs, j)
		}
	}
	if e.founding && len(jobs) > 1 {
		jobs = jobs[:1]
	}
	return jobs
}

// Find returns the sources of a blob that the Jobs which hold the node have resolved.
func (e *Env) Find(dgst digest.Digest) []blob.Source {
	e.mu.Lock()
	jobs := append([]*Job(nil), e.jobs...)
	e.mu.Unlock()
	var all []blob.Source
	for _, j := range jobs {
		all = append(all, j.Find(dgst)...)
	}
	return all
}

// Access returns the Env as what package cache asks for.
func (e *Env) Access() cache.Access { return cache.Access{Sessions: e, Blobs: e} }

// Values returns the values that the Jobs were made with which hold the node and were not refused it.
func (e *Env) Values() []any {
	e.mu.Lock()
	defer e.mu.Unlock()
	jobs := e.asking()
	vs := make([]any, len(jobs))
	for i, j := range jobs {
		vs[i] = j.value
	}
	return vs
}

// Check calls fn with each of Values. Jobs for which it fails are refused what the node makes: the
// error is about them alone, the others begin anew.
func (e *Env) Check(fn func(value any) error) error {
	e.mu.Lock()
	jobs := e.asking()
	e.mu.Unlock()
	refused := &refusedError{jobs: map[*Job]error{}}
	for _, j := range jobs {
		if err := fn(j.value); err != nil {
			refused.jobs[j] = err
			if refused.first == nil {
				refused.first = err
			}
		}
	}
	if refused.first == nil {
		return nil
	}
	return refused
}

// Resources returns the limits of the processes of the vertex, nil for none. Jobs that share it may
// have set different ones; of each the most relaxed holds.
func (e *Env) Resources() *pb.LinuxResources {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.resources
}

// relax takes the limits of one more vertex in.
func (e *Env) relax(r *pb.LinuxResources) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resources = graph.Relaxed(e.resources, r)
}

// Note keeps what the op tells about its run, for Used.
func (e *Env) Note(note any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.note = note
}

func (e *Env) noted() any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.note
}

// founder returns the Job that asks alone what the node stands for; nil if that is known.
func (e *Env) founder() *Job {
	e.mu.Lock()
	defer e.mu.Unlock()
	if jobs := e.asking(); e.founding && len(jobs) > 0 {
		return jobs[0]
	}
	return nil
}

// founded ends the time in which the first Job asks alone.
func (e *Env) founded() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.founding = false
}

// blame notes whose fault an error is. It returns the Jobs that are refused by it, with what each is
// to be told, and whether there is any sense in another attempt: others were not asked yet. Nobody is
// refused by an error that is not about those who ask. wrap makes of one fault an error of the vertex,
// as err is one.
func (e *Env) blame(err error, wrap func(error) error) (refused map[*Job]error, again bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	faults := session.Faults(err)
	for _, f := range faults {
		if e.faults == nil {
			e.faults = map[string]error{}
		}
		again = again || e.faults[f.ID] == nil
		e.faults[f.ID] = f.Err
	}
	var re *refusedError
	if !errors.As(err, &re) {
		re = &refusedError{}
	}
	refused = map[*Job]error{}
	for _, j := range e.jobs {
		switch own := re.jobs[j]; {
		case own != nil:
			refused[j] = wrap(own)
		case len(j.sessions) == 0 && len(faults) == 0 && errors.Is(err, session.ErrNoSession):
			refused[j] = err
		case len(faults) > 0 && slices.Contains(j.sessions, faults[0].ID) && e.allFailed(j):
			refused[j] = err // it tells of this one
		case e.allFailed(j):
			refused[j] = wrap(e.faults[j.sessions[0]])
		}
	}
	for j, err := range refused {
		if e.refused == nil {
			e.refused = map[*Job]error{}
		}
		again = again || e.refused[j] == nil
		e.refused[j] = err
	}
	return refused, again
}

// allFailed tells whether none of the sessions of a Job could serve.
func (e *Env) allFailed(j *Job) bool {
	return len(j.sessions) > 0 && !slices.ContainsFunc(j.sessions, func(id string) bool { return e.faults[id] == nil })
}

// readmit lets a Job ask again that wants the node once more.
func (e *Env) readmit(j *Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refused, j)
	for _, id := range j.sessions {
		delete(e.faults, id)
	}
}

func (e *Env) add(j *Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs = append(e.jobs, j)
}

func (e *Env) remove(j *Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, other := range e.jobs {
		if other == j {
			e.jobs = append(e.jobs[:i:i], e.jobs[i+1:]...)
			delete(e.refused, j)
			return
		}
	}
}
