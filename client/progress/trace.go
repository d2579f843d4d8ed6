package progress

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
)

// trace is all that is known of a build.
type trace struct {
	// nodes are those that have started, in that order; announced counts all.
	nodes     []*node
	announced int
	vertices  map[digest.Digest]*vertex
	order     []*vertex
	groups    map[string]*node
	// onNode is called for every new node.
	onNode func(*node)
	// keepOutput keeps all output of vertices that may yet fail rather than its end.
	keepOutput bool

	// began is when the display started; skew is what must be added to a time of the daemon to
	// have it on this clock.
	began   time.Time
	skew    time.Duration
	hasSkew bool
}

func newTrace() *trace {
	return &trace{
		vertices: map[digest.Digest]*vertex{},
		groups:   map[string]*node{},
		onNode:   func(*node) {},
		began:    time.Now(),
	}
}

// node is what is shown as one step: a vertex or a progress group.
type node struct {
	name     string
	group    bool
	members  []*vertex
	statuses []*stepStatus
	byStatus map[statusKey]*stepStatus
	warnings []event.Warning
	lines    lineBuffer
	// output is given every piece of output as it is; nil unless a renderer wants it.
	output func([]byte)
	// changed is set when something was added that has not been shown, waiting since then.
	changed bool
	waiting time.Time
}

// vertex is the state of one vertex.
type vertex struct {
	digest digest.Digest
	name   string
	node   *node
	weak   bool
	spans  []span
	cached bool
	err    string
	// tail is the end of the output, kept for vertices that fail.
	tail tail
}

// span is a time that a vertex was worked on; stop is zero while it is.
type span struct{ start, stop time.Time }

type statusKey struct {
	vertex digest.Digest
	id     string
}

// stepStatus is a status with what plain mode has printed of it.
type stepStatus struct {
	event.Status
	printed     bool
	printedAt   time.Time
	printedSize int64
	printedDone bool
}

func (t *trace) add(b event.Batch) {
	now := time.Now()
	for _, v := range b.Vertices {
		t.addVertex(now, v)
	}
	for _, s := range b.Statuses {
		if v, ok := t.vertices[s.Vertex]; ok {
			v.node.addStatus(s)
			v.node.touch(now)
		}
	}
	for _, w := range b.Warnings {
		if v, ok := t.vertices[w.Vertex]; ok {
			v.node.warnings = append(v.node.warnings, w)
			v.node.touch(now)
		}
	}
	for _, l := range b.Logs {
		if v, ok := t.vertices[l.Vertex]; ok {
			v.addLog(l)
			v.node.touch(now)
		}
	}
}

func (t *trace) addVertex(now time.Time, e event.Vertex) {
	v, ok := t.vertices[e.Digest]
	if !ok {
		v = &vertex{digest: e.Digest, name: e.Name, tail: tail{whole: t.keepOutput}}
		t.vertices[e.Digest] = v
		t.order = append(t.order, v)
		t.place(v, e)
	}
	v.cached = e.Cached
	if e.Error != "" {
		v.err = e.Error
	}
	if e.Started == nil {
		return
	}
	if !t.hasSkew {
		t.skew, t.hasSkew = now.Sub(*e.Started), true
	}
	if !v.node.started() {
		t.nodes = append(t.nodes, v.node)
	}
	v.setSpan(*e.Started, e.Completed)
	if e.Completed != nil && v.err == "" {
		v.tail = tail{whole: t.keepOutput}
	}
	v.node.touch(now)
}

// place finds or makes the node that shows v.
func (t *trace) place(v *vertex, e event.Vertex) {
	if g := e.ProgressGroup; g == nil {
		v.node = t.newNode(e.Name, false)
	} else {
		v.weak = g.GetWeak()
		if t.groups[g.GetId()] == nil {
			t.groups[g.GetId()] = t.newNode(g.GetName(), true)
		}
		v.node = t.groups[g.GetId()]
	}
	v.node.members = append(v.node.members, v)
}

func (t *trace) newNode(name string, group bool) *node {
	n := &node{name: name, group: group}
	t.announced++
	t.onNode(n)
	return n
}

func (n *node) touch(now time.Time) {
	if !n.changed {
		n.changed, n.waiting = true, now
	}
}

func (n *node) addStatus(s event.Status) {
	key := statusKey{s.Vertex, s.ID}
	if known, ok := n.byStatus[key]; ok {
		known.Status = s
		return
	}
	if n.byStatus == nil {
		n.byStatus = map[statusKey]*stepStatus{}
	}
	n.byStatus[key] = &stepStatus{Status: s}
	n.statuses = append(n.statuses, n.byStatus[key])
}

func (v *vertex) addLog(l event.Log) {
	var at time.Duration
	if start, ok := v.lastStart(); ok {
		at = max(0, l.Timestamp.Sub(start))
	}
	v.node.lines.write(l.Stream, at, l.Data)
	v.tail.write(l.Stream, at, l.Data)
	if v.node.output != nil {
		v.node.output(l.Data)
	}
}

func (v *vertex) setSpan(start time.Time, stop *time.Time) {
	i := slices.IndexFunc(v.spans, func(s span) bool { return s.start.Equal(start) })
	if i < 0 {
		i = len(v.spans)
		v.spans = append(v.spans, span{start: start})
	}
	if stop != nil {
		v.spans[i].stop = *stop
	}
}

func (v *vertex) lastStart() (time.Time, bool) {
	if len(v.spans) == 0 {
		return time.Time{}, false
	}
	return v.spans[len(v.spans)-1].start, true
}

func (v *vertex) running() bool {
	return len(v.spans) > 0 && v.spans[len(v.spans)-1].stop.IsZero()
}

func (v *vertex) canceled() bool { return strings.HasSuffix(v.err, "context canceled") }

// started reports whether a member has begun.
func (n *node) started() bool {
	return slices.ContainsFunc(n.members, func(v *vertex) bool { return len(v.spans) > 0 })
}

// done reports whether all that has begun has ended.
func (n *node) done() bool {
	return n.started() && !slices.ContainsFunc(n.members, (*vertex).running)
}

// hidden reports whether nothing of a group is worth showing yet.
func (n *node) hidden() bool {
	return n.group && !slices.ContainsFunc(n.members, func(v *vertex) bool {
		return v.err != "" || !v.weak && len(v.spans) > 0
	})
}

// cached reports whether all that has begun was cached.
func (n *node) cached() bool {
	return n.started() && !slices.ContainsFunc(n.members, func(v *vertex) bool {
		return len(v.spans) > 0 && !v.cached
	})
}

// failed returns the first member with an error, preferring one that was not canceled.
func (n *node) failed() *vertex {
	var found *vertex
	for _, v := range n.members {
		if v.err != "" && (found == nil || found.canceled() && !v.canceled()) {
			found = v
		}
	}
	return found
}

// ended returns when the last member ended.
func (n *node) ended() time.Time {
	var last time.Time
	for _, v := range n.members {
		for _, s := range v.spans {
			if s.stop.After(last) {
				last = s.stop
			}
		}
	}
	return last
}

// elapsed returns how long members were worked on until now, a time of the daemon. Times that
// overlap count once.
func (n *node) elapsed(now time.Time) time.Duration {
	var spans []span
	for _, v := range n.members {
		for _, s := range v.spans {
			if s.stop.IsZero() {
				s.stop = now
			}
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(a.start.Compare(b.start), a.stop.Compare(b.stop))
	})
	var total time.Duration
	var until time.Time
	for _, s := range spans {
		if s.start.Before(until) {
			s.start = until
		}
		if s.stop.After(s.start) {
			total += s.stop.Sub(s.start)
			until = s.stop
		}
	}
	return total
}

// daemonNow returns what time it is for the daemon.
func (t *trace) daemonNow() time.Time { return time.Now().Add(-t.skew) }

// failures returns the vertices that failed of themselves, in the order announced.
func (t *trace) failures() []*vertex {
	var out []*vertex
	for _, v := range t.order {
		if v.err != "" && !v.canceled() {
			out = append(out, v)
		}
	}
	return out
}
