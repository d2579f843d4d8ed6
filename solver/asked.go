package solver

import (
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/solver/provenance"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/source"
)

// asked is what one frontend was asked for, and what it then asked for itself: provenance tells it.
type asked struct {
	frontend string
	opts     map[string]string
	inputs   map[string]*pb.Definition
	// parent is the request in which this one was made; nil for that of the client.
	parent *asked

	mu       sync.Mutex
	loaded   []schedule.Edge
	resolved []source.Material
}

func (a *asked) load(e schedule.Edge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded = append(a.loaded, e)
}

// resolve notes a source that a frontend looked up without loading it.
func (a *asked) resolve(id source.Identifier, meta *gateway.SourceMeta) {
	m, ok := id.(source.Materialer)
	if !ok {
		return
	}
	var pin string
	switch {
	case meta.Image != nil:
		pin = meta.Image.Digest.String()
	case meta.Git != nil:
		pin = meta.Git.GetCommitChecksum()
		if pin == "" {
			pin = meta.Git.GetChecksum()
		}
	case meta.HTTP != nil:
		pin = meta.HTTP.GetChecksum()
	}
	if pin == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resolved = append(a.resolved, m.Material(pin))
}

// found returns what was loaded and looked up so far.
func (a *asked) found() ([]schedule.Edge, []source.Material) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.loaded), slices.Clone(a.resolved)
}

// sources returns the requests that a result of a may owe something to, a first: those that a was made in, and
// those that made inputs of one of them. What a client that runs its own frontend does besides is not told.
func (a *asked) sources(made func(root digest.Digest) *asked) []*asked {
	var all []*asked
	seen := map[*asked]bool{}
	for todo := []*asked{a}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if at == nil || at.parent == nil || seen[at] {
			continue
		}
		seen[at] = true
		all = append(all, at)
		todo = append(todo, at.parent)
		for _, name := range slices.Sorted(maps.Keys(at.inputs)) {
			todo = append(todo, at.maker(name, made))
		}
	}
	return all
}

// maker returns the request that made the input of a name, nil if that is not known.
func (a *asked) maker(input string, made func(root digest.Digest) *asked) *asked {
	def := a.inputs[input].GetDef()
	if len(def) == 0 {
		return nil
	}
	return made(digest.FromBytes(def[len(def)-1]))
}

func (a *asked) root() *asked {
	for a.parent != nil {
		a = a.parent
	}
	return a
}

// maxTold is how many requests are told of that inputs come from, those of inputs of inputs counted each time.
const maxTold = 100

// request returns the request as provenance tells it, with those that its inputs come from. Made tells which
// request a definition came from, if that is known.
func (a *asked) request(made func(root digest.Digest) *asked) *provenance.Request {
	left := maxTold
	return a.tell(made, map[*asked]bool{}, &left)
}

// tell is request within those that are told already: two that returned what the other was given have no end.
func (a *asked) tell(made func(root digest.Digest) *asked, within map[*asked]bool, left *int) *provenance.Request {
	within[a] = true
	defer delete(within, a)
	r := &provenance.Request{Frontend: a.frontend, Options: a.opts}
	for _, name := range slices.Sorted(maps.Keys(a.inputs)) {
		if r.Inputs == nil {
			r.Inputs = map[string]*provenance.Request{}
		}
		r.Inputs[name] = nil
		if from := a.maker(name, made); from != nil && !within[from] && *left > 0 {
			*left--
			r.Inputs[name] = from.tell(made, within, left)
		}
	}
	return r
}
