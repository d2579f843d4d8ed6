package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/key"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// world is a fake worker: vertices compute strings from the strings of their inputs.
type world struct {
	t     *testing.T
	keys  *key.Store
	s     *schedule.Scheduler
	specs map[string]*spec

	mu     sync.Mutex
	stored map[string]string // result id -> value
	lost   map[string]bool
	runs   map[string]int
	live   atomic.Int64
	nextID int
}

// spec is what the vertex of a name does.
type spec struct {
	name string
	// does replaces name in the key: two names that do the same.
	does string
	// content makes inputs match by content, unless finding it out fails with contentErr.
	content    bool
	contentErr error
	// source vertices have no inputs; value is what they yield now.
	source   bool
	value    func() string
	unstored bool
	// brief vertices yield their name alone: values of deep graphs would grow without bound.
	brief   bool
	outputs int
	run     func(ctx context.Context, env *schedule.Env) error
	// identify is what a source asks for before it is known.
	identify func(ctx context.Context, env *schedule.Env) error
}

type value struct {
	w  *world
	id string
	v  string
	// released guards against a handle that is used or released twice.
	released *atomic.Bool
}

func (r value) ID() string { return r.id }

func (r value) Clone() schedule.Result {
	if r.released.Load() {
		panic("clone of a released result")
	}
	return r.w.handle(r.id, r.v)
}

func (r value) Release() {
	if r.released.Swap(true) {
		panic("released twice")
	}
	r.w.live.Add(-1)
}

func (w *world) handle(id, v string) value {
	w.live.Add(1)
	return value{w: w, id: id, v: v, released: &atomic.Bool{}}
}

func newWorld(t *testing.T, specs ...*spec) *world {
	t.Helper()
	w := &world{t: t, specs: map[string]*spec{}, stored: map[string]string{}, lost: map[string]bool{}, runs: map[string]int{}}
	for _, sp := range specs {
		w.specs[sp.name] = sp
	}
	keys, err := key.Open(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	w.keys = keys
	w.s = schedule.New(keys, w.op, w.load)
	t.Cleanup(func() {
		w.s.Wait()
		require.Zero(t, w.s.Nodes(), "nodes that no job holds")
		require.Zero(t, w.live.Load(), "results that nobody released")
		require.NoError(t, keys.Close())
	})
	return w
}

func (w *world) load(_ context.Context, id string) (schedule.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.stored[id]
	if !ok {
		return nil, errors.New("no such result")
	}
	return w.handle(id, v), nil
}

func (w *world) keep(v string) value {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nextID++
	id := fmt.Sprintf("r%d", w.nextID)
	w.stored[id] = v
	return w.handle(id, v)
}

func (w *world) ran(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[name]
}

func (w *world) op(v *graph.Vertex) (schedule.Op, error) { return &fakeOp{w, w.specs[v.Name], v}, nil }

type fakeOp struct {
	w  *world
	sp *spec
	v  *graph.Vertex
}

func (o *fakeOp) Static() bool { return !o.sp.source }

func (o *fakeOp) Identify(ctx context.Context, env *schedule.Env) (*schedule.Identity, error) {
	if o.sp.identify != nil {
		if err := o.sp.identify(ctx, env); err != nil {
			return nil, err
		}
	}
	does := o.sp.does
	if does == "" {
		does = o.sp.name
	}
	id := &schedule.Identity{Unstored: o.sp.unstored}
	if o.sp.source {
		id.Pin = o.sp.value()
		does += "=" + id.Pin + version(o.v)
	}
	id.Keys = []digest.Digest{digest.FromString(does)}
	for range o.v.Inputs {
		in := schedule.InputIdentity{}
		if o.sp.content {
			in.Content = func(_ context.Context, _ *schedule.Env, r schedule.Result) (digest.Digest, error) {
				if err := o.w.check(r); err != nil {
					return "", err
				}
				return digest.FromString(r.(value).v), o.sp.contentErr
			}
		}
		id.Inputs = append(id.Inputs, in)
	}
	return id, nil
}

// version is empty for the current one.
func version(v *graph.Vertex) string {
	if v.Compat == 0 {
		return ""
	}
	return fmt.Sprintf("@%d", v.Compat)
}

func (w *world) check(r schedule.Result) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost[r.ID()] {
		return fmt.Errorf("read %s: %w", r.ID(), schedule.ErrLost)
	}
	return nil
}

func (o *fakeOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	v := o.sp.name
	if o.sp.does != "" {
		v = o.sp.does
	}
	if o.sp.source {
		v = o.sp.value() + version(o.v)
	}
	for _, in := range inputs {
		if err := o.w.check(in); err != nil {
			return nil, err
		}
		if !o.sp.brief {
			v += "(" + in.(value).v + ")"
		}
	}
	o.w.mu.Lock()
	o.w.runs[o.sp.name]++
	o.w.mu.Unlock()
	if o.sp.run != nil {
		if err := o.sp.run(ctx, env); err != nil {
			return nil, err
		}
	}
	n := max(1, o.sp.outputs)
	out := make([]schedule.Result, n)
	for i := range out {
		s := v
		if n > 1 {
			s = fmt.Sprintf("%s#%d", v, i)
		}
		out[i] = o.w.keep(s)
	}
	return out, nil
}

// chart builds graphs: each call of add makes a vertex on top of others.
type chart struct {
	order []*graph.Vertex
}

func (c *chart) add(name string, inputs ...graph.Edge) graph.Edge {
	v := &graph.Vertex{Name: name, Inputs: inputs, Op: &pb.Op{}}
	s := name
	for _, in := range inputs {
		s += string(in.Vertex.Digest) + fmt.Sprint(in.Output)
	}
	v.Digest = digest.FromString(s)
	c.order = append(c.order, v)
	return graph.Edge{Vertex: v}
}

func (c *chart) graph(root graph.Edge) *graph.Graph {
	return &graph.Graph{Vertices: c.order, Root: root}
}

func (w *world) build(g *graph.Graph) (string, error) {
	j := w.s.NewJob([]string{"s"}, feed.New(""), nil)
	defer j.Close()
	return w.buildIn(j, g)
}

func (w *world) buildIn(j *schedule.Job, g *graph.Graph) (string, error) {
	e, err := j.Load(context.Background(), g)
	if err != nil {
		return "", err
	}
	var out string
	err = j.Use(context.Background(), []schedule.Edge{e}, func(rs []schedule.Result) error {
		if err := w.check(rs[0]); err != nil {
			return err
		}
		out = rs[0].(value).v
		return nil
	})
	return out, err
}

func (w *world) mustBuild(g *graph.Graph) string {
	w.t.Helper()
	v, err := w.build(g)
	require.NoError(w.t, err)
	return v
}

func fixed(s string) func() string { return func() string { return s } }

func TestSecondBuildRunsNothing(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v1")}, &spec{name: "a"}, &spec{name: "b"})
	c := &chart{}
	g := c.graph(c.add("b", c.add("a", c.add("src"))))
	require.Equal(t, "b(a(v1))", w.mustBuild(g))
	require.Equal(t, "b(a(v1))", w.mustBuild(g))
	require.Equal(t, 1, w.ran("src"))
	require.Equal(t, 1, w.ran("a"))
	require.Equal(t, 1, w.ran("b"))
}

func TestChangedSourceRunsWhatDependsOnIt(t *testing.T) {
	now := "v1"
	w := newWorld(t, &spec{name: "src", source: true, value: func() string { return now }}, &spec{name: "a"},
		&spec{name: "other", source: true, value: fixed("o")}, &spec{name: "c"}, &spec{name: "b"})
	c := &chart{}
	g := c.graph(c.add("b", c.add("a", c.add("src")), c.add("c", c.add("other"))))
	require.Equal(t, "b(a(v1))(c(o))", w.mustBuild(g))
	now = "v2"
	require.Equal(t, "b(a(v2))(c(o))", w.mustBuild(g))
	require.Equal(t, 2, w.ran("a"))
	require.Equal(t, 1, w.ran("c"))
	require.Equal(t, 2, w.ran("b"))
}

func TestContentStopsAChangeFromSpreading(t *testing.T) {
	now := "v1"
	w := newWorld(t, &spec{name: "src", source: true, value: func() string { return now }},
		&spec{name: "same", does: "constant", content: true}, &spec{name: "b", content: true}, &spec{name: "c"})
	// "same" yields what it reads, so another source with equal text is equal content.
	w.specs["src2"] = &spec{name: "src2", source: true, value: fixed("v1")}
	c := &chart{}
	g := c.graph(c.add("c", c.add("b", c.add("src"))))
	g2c := &chart{}
	g2 := g2c.graph(g2c.add("c", g2c.add("b", g2c.add("src2"))))
	require.Equal(t, "c(b(v1))", w.mustBuild(g))
	require.Equal(t, "c(b(v1))", w.mustBuild(g2))
	require.Equal(t, 1, w.ran("b"))
	require.Equal(t, 1, w.ran("c"))
	require.Equal(t, 1, w.ran("src2"))
	// The alternative was linked: now the definition alone is enough.
	require.Equal(t, "c(b(v1))", w.mustBuild(g2))
	require.Equal(t, 1, w.ran("src2"))
}

func TestUnstoredSourceMatchesByContentOnly(t *testing.T) {
	w := newWorld(t, &spec{name: "ctx", source: true, unstored: true, value: fixed("files")}, &spec{name: "copy", content: true})
	c := &chart{}
	g := c.graph(c.add("copy", c.add("ctx")))
	w.mustBuild(g)
	w.mustBuild(g)
	require.Equal(t, 2, w.ran("ctx"))
	require.Equal(t, 1, w.ran("copy"))
}

func TestIgnoredVertexRunsAndItsUsersMatchByContentOnly(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v")}, &spec{name: "run"},
		&spec{name: "copy", content: true}, &spec{name: "next"}, &spec{name: "after"})
	c := &chart{}
	run := c.add("run", c.add("src"))
	top := c.add("after", c.add("copy", run), c.add("next", run))
	g := c.graph(top)
	w.mustBuild(g)
	run.Vertex.IgnoreCache = true
	w.mustBuild(g)
	require.Equal(t, 1, w.ran("src"))
	require.Equal(t, 2, w.ran("run"))
	require.Equal(t, 1, w.ran("copy"), "equal content of a fresh result is a hit")
	require.Equal(t, 2, w.ran("next"), "a fresh result has no definition keys")
	require.Equal(t, 2, w.ran("after"), "nor has what was made from it")
	run.Vertex.IgnoreCache = false
	w.mustBuild(g)
	require.Equal(t, 2, w.ran("after"))
}

func TestJobsOfDifferentVersionsShareNothingThatHasChanged(t *testing.T) {
	w := newWorld(t, &spec{name: "repo", source: true, value: fixed("v")}, &spec{name: "image", source: true, value: fixed("i")}, &spec{name: "run"})
	build := func(version compat.Version) (string, func()) {
		c := &chart{}
		repo := c.add("repo")
		repo.Vertex.Compat = version
		j := w.s.NewJob([]string{"s"}, feed.New(""), nil)
		out, err := w.buildIn(j, c.graph(c.add("run", repo, c.add("image"))))
		require.NoError(t, err)
		return out, j.Close
	}
	for range 2 {
		now, closeNow := build(0)
		old, closeOld := build(compat.V10)
		require.Equal(t, "run(v)(i)", now)
		require.Equal(t, "run(v@10)(i)", old)
		closeNow()
		closeOld()
	}
	require.Equal(t, 2, w.ran("repo"))
	require.Equal(t, 2, w.ran("run"))
	require.Equal(t, 1, w.ran("image"))
}

func TestLostResultIsMadeAnew(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v")}, &spec{name: "a"}, &spec{name: "b"}, &spec{name: "c", content: true})
	c := &chart{}
	a := c.add("a", c.add("src"))
	g := c.graph(a)
	w.mustBuild(g)
	w.mu.Lock()
	for id := range w.stored {
		w.lost[id] = true
	}
	w.mu.Unlock()
	g = c.graph(c.add("c", c.add("b", a)))
	require.Equal(t, "c(b(a(v)))", w.mustBuild(g))
	require.Equal(t, 2, w.ran("a"))
	require.Equal(t, 2, w.ran("src"))
}

// A registry may say for good that it does not have what it promised.
func TestInputThatIsLostEachTimeFailsTheVertex(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("v")}, &spec{name: "a", run: func(context.Context, *schedule.Env) error {
		return fmt.Errorf("layer: %w", schedule.ErrLost)
	}})
	c := &chart{}
	_, err := w.build(c.graph(c.add("a", c.add("src"))))
	require.ErrorIs(t, err, schedule.ErrLost)
	require.Greater(t, w.ran("src"), 1)
	require.Less(t, w.ran("src"), 20)
}

func TestResultThatCannotBeOpenedIsAMiss(t *testing.T) {
	w := newWorld(t, &spec{name: "a"}, &spec{name: "b"})
	c := &chart{}
	g := c.graph(c.add("b", c.add("a")))
	w.mustBuild(g)
	w.mu.Lock()
	clear(w.stored)
	w.mu.Unlock()
	require.Equal(t, "b(a)", w.mustBuild(g))
	require.Equal(t, 2, w.ran("b"))
}

func TestVertexErrorNamesTheVertex(t *testing.T) {
	w := newWorld(t, &spec{name: "bad", run: func(context.Context, *schedule.Env) error { return errors.New("broken") }}, &spec{name: "top"})
	c := &chart{}
	bad := c.add("bad")
	_, err := w.build(c.graph(c.add("top", bad)))
	var ve *status.VertexError
	require.ErrorAs(t, err, &ve)
	require.Equal(t, string(bad.Vertex.Digest), ve.Digest)
	require.EqualError(t, err, "broken")
	require.Zero(t, w.ran("top"))
}

func TestVertexWithoutKeyShowsTheReason(t *testing.T) {
	w := newWorld(t, &spec{name: "src", source: true, value: fixed("1")},
		&spec{name: "copy", content: true, contentErr: errors.New("not found")}, &spec{name: "top"})
	c := &chart{}
	top := c.add("top", c.add("copy", c.add("src")))
	told := feed.New("")
	j := w.s.NewJob([]string{"s"}, told, nil)
	defer j.Close()
	_, err := w.buildIn(j, c.graph(top))
	require.EqualError(t, err, "failed to compute cache key: not found")
	told.Close()
	copied := slices.IndexFunc(told.Vertices(), func(v *event.Vertex) bool { return v.Name == "copy" })
	require.Equal(t, "not found", told.Vertices()[copied].Error)
	require.Zero(t, w.ran("copy"))
}

func TestPanicEndsTheVertex(t *testing.T) {
	w := newWorld(t, &spec{name: "bad", run: func(context.Context, *schedule.Env) error { panic("oops") }})
	c := &chart{}
	_, err := w.build(c.graph(c.add("bad")))
	require.ErrorContains(t, err, "oops")
}

func TestOutputsOfOneVertexRunOnce(t *testing.T) {
	w := newWorld(t, &spec{name: "multi", outputs: 3}, &spec{name: "join"})
	c := &chart{}
	m := c.add("multi")
	g := c.graph(c.add("join", graph.Edge{Vertex: m.Vertex, Output: 2}, graph.Edge{Vertex: m.Vertex, Output: 0}))
	require.Equal(t, "join(multi#2)(multi#0)", w.mustBuild(g))
	require.Equal(t, 1, w.ran("multi"))
	w.mustBuild(g)
	require.Equal(t, 1, w.ran("multi"))
	_, err := w.build(c.graph(graph.Edge{Vertex: m.Vertex, Output: 5}))
	require.ErrorContains(t, err, "need 5 index but 3 results received")
}
