package schedule

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/key"
)

// nodeID tells which vertices are one. Besides the digest it has what the digest leaves out and
// sharing must respect: which of the vertex and its ancestors ignore the cache, are of an older
// version or under policies, the session whose files it reads, and the Job that alone may have it.
type nodeID struct {
	digest  digest.Digest
	variant digest.Digest
	session string
	owner   *Job
}

// level is how much is wanted of an output.
type level uint8

const (
	wantNothing level = iota
	wantKeys          // the keys by definition
	wantResult
)

// phase is what a node is doing. Work runs in the phases named after it.
type phase uint8

const (
	phaseIdle     phase = iota
	phaseIdentify       // identity is being asked for
	phaseKeys           // waits for the keys of its inputs
	phaseKnown          // definition keys are known; nothing more is wanted, or all of it is there
	phaseLoad           // a stored result is being opened
	phaseInputs         // waits for the inputs that content matching needs
	phaseRest           // waits for the other inputs
	phaseWait           // another node runs what would match
	phaseRun
)

// prefix says in errors of a phase what could not be done.
func (p phase) prefix() string {
	switch p {
	case phaseIdentify:
		return "failed to load cache key"
	case phaseInputs:
		return "failed to compute cache key"
	default:
		return ""
	}
}

// node is a vertex with its state. Everything but the immutable part is guarded by the
// scheduler's lock.
type node struct {
	id       nodeID
	vertex   *graph.Vertex
	op       Op
	inputs   []*input
	env      *Env
	progress *progress

	jobs    map[*Job]struct{}
	waiters []waiter
	parents []*node

	phase  phase
	queued bool
	// lacking is how many inputs, at least, have to tell something new before the node can go on. A node of
	// many inputs is not looked at for each of them.
	lacking  int
	identity *Identity
	outputs  []*output // by index; grows as outputs are asked for
	// err ended the node, for all who wait until the last Job goes.
	err error
	// left is what err holds; nil for an error that came from an input.
	left releaser
	// cancel ends the work that runs for the phase; nil if none does.
	cancel context.CancelCauseFunc
	// skip are stored results that could not be opened.
	skip map[string]bool
	// tried counts how often results that this node had found were lost afterwards.
	tried int
	// ran tells that the op ran, so that the results are no older than the node.
	ran bool
	// followers wait until this node has run.
	followers []*node
	blobs     blob.Sources
	// held is set once the node has been given to a Job.
	held bool
	// gone is set once no Job holds the node: results that still arrive are released.
	gone bool
}

type waiter struct {
	want  *Want
	level level
}

// input is an edge from a node to one that it reads.
type input struct {
	node   *node
	output int
	// asked is how much this node wants of it.
	asked level
	// content is the digest of what is read, once computed for the result of generation gen.
	content digest.Digest
	gen     int
}

// output is one result of a node.
type output struct {
	want level
	// known tells that keys holds the keys by definition, perhaps none.
	known bool
	keys  []key.ID
	// result, once had, with the keys that consumers match by and those they are stored under.
	result Result
	match  []key.ID
	store  []key.ID
	// fresh tells that the result is newer than what its keys may lead to: the vertex or one that
	// it was made from ignored the cache.
	fresh bool
	// gen counts results that were lost and had to be made anew.
	gen int
}

func (n *node) output(i int) *output {
	for len(n.outputs) <= i {
		n.outputs = append(n.outputs, &output{})
	}
	return n.outputs[i]
}

// get returns the output that in reads.
func (in *input) get() *output { return in.node.output(in.output) }

// wanted returns the highest level that anybody waits for.
func (n *node) wanted() level {
	l := wantNothing
	for _, w := range n.waiters {
		l = max(l, w.level)
	}
	return l
}

// satisfied tells whether an output is had at a level. A failed node has nothing more to give.
func (o *output) satisfied(l level) bool {
	switch l {
	case wantResult:
		return o.result != nil
	case wantKeys:
		return o.known || o.result != nil
	default:
		return true
	}
}

// matchKeys returns the keys by which consumers may match before anything of this output is
// executed, or after.
func (o *output) matchKeys() []key.ID {
	if o.result != nil {
		return o.match
	}
	return o.keys
}
