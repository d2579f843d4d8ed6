package schedule

import (
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
	// tried are the sessions that were handed out since the last take.
	tried map[string]bool
	// resources are the limits of all who joined the node.
	resources *pb.LinuxResources
	note      any
}

var (
	_ session.Group = (*Env)(nil)
	_ blob.Finder   = (*Env)(nil)
)

// SessionIDs returns the sessions of the Jobs that hold the node now.
func (e *Env) SessionIDs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tried == nil {
		e.tried = map[string]bool{}
	}
	jobs := e.jobs
	if e.founding && len(jobs) > 1 {
		jobs = jobs[:1]
	}
	var ids []string
	for _, j := range jobs {
		for _, id := range j.sessions {
			ids = append(ids, id)
			e.tried[id] = true
		}
	}
	return ids
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

// Values returns the value that each Job which holds the node was made with.
func (e *Env) Values() []any {
	e.mu.Lock()
	defer e.mu.Unlock()
	vs := make([]any, len(e.jobs))
	for i, j := range e.jobs {
		vs[i] = j.value
	}
	return vs
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

// founded ends the time in which the first Job asks alone.
func (e *Env) founded() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.founding = false
}

// passOver lets the next Job ask where the first was refused, and returns the first; nil if it was
// not the first alone who asked.
func (e *Env) passOver() *Job {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.founding || len(e.jobs) == 0 {
		return nil
	}
	first := e.jobs[0]
	e.jobs = append(e.jobs[1:len(e.jobs):len(e.jobs)], first)
	return first
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
			return
		}
	}
}

// takeTried returns the sessions that were handed out, and forgets them.
func (e *Env) takeTried() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.tried
	e.tried = nil
	return t
}
