package schedule

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// progress is the event.Sink of a node: it passes events on to the Jobs that hold the node, and
// keeps them for those that come late. Logs stay where the first of the Jobs has them.
type progress struct {
	vertex *graph.Vertex

	mu       sync.Mutex
	jobs     []*Job
	state    event.Vertex
	statuses []event.Status
	byID     map[string]int
	logs     feed.Pieces
	warnings []event.Warning
}

func newProgress(v *graph.Vertex) *progress {
	p := &progress{vertex: v, state: event.Vertex{Digest: v.Digest, Name: v.Name, ProgressGroup: v.ProgressGroup}}
	for _, in := range v.Inputs {
		p.state.Inputs = append(p.state.Inputs, in.Vertex.Digest)
	}
	return p
}

// blank returns the vertex as it is announced.
func (p *progress) blank() event.Vertex {
	v := event.Vertex{Digest: p.vertex.Digest, Name: p.vertex.Name, ProgressGroup: p.vertex.ProgressGroup}
	for _, in := range p.vertex.Inputs {
		v.Inputs = append(v.Inputs, in.Vertex.Digest)
	}
	return v
}

func (p *progress) join(j *Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, j)
	b := event.Batch{
		Statuses: append([]event.Status(nil), p.statuses...),
		Warnings: append([]event.Warning(nil), p.warnings...),
	}
	if p.state.Started != nil {
		b.Vertices = []event.Vertex{p.state}
	}
	j.feed.Emit(b)
	j.feed.Repeat(&p.logs)
}

func (p *progress) leave(j *Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.jobs {
		if other == j {
			p.jobs = append(p.jobs[:i:i], p.jobs[i+1:]...)
			return
		}
	}
}

// Emit keeps b and passes it on. Who has told of output waits until there is room for more.
func (p *progress) Emit(b event.Batch) {
	jobs := p.tell(b)
	if len(b.Logs) > 0 {
		for _, j := range jobs {
			j.feed.Wait()
		}
	}
}

// tell is Emit without waiting. It returns who was told.
func (p *progress) tell(b event.Batch) []*Job {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range b.Statuses {
		if i, ok := p.byID[st.ID]; ok {
			p.statuses[i] = st
			continue
		}
		if p.byID == nil {
			p.byID = map[string]int{}
		}
		p.byID[st.ID] = len(p.statuses)
		p.statuses = append(p.statuses, st)
	}
	p.warnings = append(p.warnings, b.Warnings...)
	for _, v := range b.Vertices {
		if v.Digest == p.vertex.Digest {
			p.state = v
		}
	}
	for i, j := range p.jobs {
		pieces := j.feed.Keep(b)
		if i == 0 {
			p.logs.Add(pieces)
		}
	}
	return slices.Clone(p.jobs)
}

// release is called when no Job is left, nor will be.
func (p *progress) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logs.Release()
}

func (p *progress) set(change func(v *event.Vertex)) {
	p.mu.Lock()
	v := p.state
	p.mu.Unlock()
	change(&v)
	p.tell(event.Batch{Vertices: []event.Vertex{v}})
}

// start tells that the vertex is being worked on, and returns the function that tells its end. An
// error that is OfRequester is not the end: it is told to those who are refused.
func (p *progress) start() (done func(err error, ctx context.Context)) {
	now := time.Now()
	p.set(func(v *event.Vertex) {
		v.Started, v.Completed, v.Error = &now, nil, ""
	})
	return func(err error, ctx context.Context) {
		if err != nil && ctx.Err() == nil && OfRequester(err) {
			return
		}
		end := time.Now()
		p.set(func(v *event.Vertex) {
			v.Completed = &end
			switch {
			case err == nil:
			case ctx.Err() != nil:
				v.Error = context.Canceled.Error()
			default:
				v.Error = err.Error()
			}
		})
	}
}

// failed tells the end of a vertex by an error, unless that was told already.
func (p *progress) failed(err error) {
	p.mu.Lock()
	told := p.state.Started == nil || p.state.Completed != nil
	p.mu.Unlock()
	if told {
		return
	}
	now := time.Now()
	p.set(func(v *event.Vertex) { v.Completed, v.Error = &now, err.Error() })
}

// refused tells one Job that the vertex has failed for it.
func (p *progress) refused(j *Job, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.jobs, j) {
		return
	}
	now := time.Now()
	v := p.state
	v.Completed, v.Error = &now, err.Error()
	if v.Started == nil {
		v.Started = &now
	}
	j.feed.Keep(event.Batch{Vertices: []event.Vertex{v}})
}

// idle is called when nobody waits for a vertex that was begun: who comes later is not told that it is
// being worked on.
func (p *progress) idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Completed == nil {
		p.state.Started = nil
	}
}

// cached tells that the vertex was found and not worked on.
func (p *progress) cached() {
	now := time.Now()
	p.set(func(v *event.Vertex) {
		v.Started, v.Completed, v.Cached, v.Error = &now, &now, true, ""
	})
}

// opKind names the kind of a vertex in errors.
func opKind(v *graph.Vertex) string {
	switch v.Op.Op.(type) {
	case *pb.Op_Exec:
		return "exec"
	case *pb.Op_File:
		return "file"
	case *pb.Op_Source:
		return "source"
	case *pb.Op_Build:
		return "build"
	case *pb.Op_Merge:
		return "merge"
	case *pb.Op_Diff:
		return "diff"
	default:
		return "passthrough"
	}
}
