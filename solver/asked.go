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

func (a *asked) root() *asked {
	for a.parent != nil {
		a = a.parent
	}
	return a
}

// request returns the request as provenance tells it. Made tells which request a definition came
// from, if that is known.
func (a *asked) request(made func(root digest.Digest) *asked) *provenance.Request {
	r := &provenance.Request{Frontend: a.frontend, Options: a.opts}
	for _, name := range slices.Sorted(maps.Keys(a.inputs)) {
		if r.Inputs == nil {
			r.Inputs = map[string]*provenance.Request{}
		}
		r.Inputs[name] = nil
		def := a.inputs[name].GetDef()
		if len(def) == 0 {
			continue
		}
		// A request is made of those before it, so this ends.
		if from := made(digest.FromBytes(def[len(def)-1])); from != nil && from != a {
			r.Inputs[name] = from.request(func(digest.Digest) *asked { return nil })
		}
	}
	return r
}
