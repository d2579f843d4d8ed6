package cache_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// merger makes trees of each other at random. Each has to be what its layers unpack to, however often
// the cache is opened and whatever is pruned.
type merger struct {
	*env
	rnd    *rand.Rand
	remote *remote
	refs   []*cache.Ref
	files  map[string]map[string]string
	n      int
}

func TestMergesAreWhatTheirLayersUnpackTo(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		for seed := range uint64(3) {
			m := &merger{env: e, rnd: rand.New(rand.NewPCG(seed, 11)), remote: newRemote(), files: map[string]map[string]string{}}
			for range 40 {
				m.draw()
			}
			m.forget()
			require.NotEmpty(t, m.prune(cache.PruneOpt{All: true}))
			require.Empty(t, m.usage())
		}
	})
}

func (m *merger) pick() *cache.Ref { return m.refs[m.rnd.IntN(len(m.refs))] }

func (m *merger) draw() {
	m.n++
	name := func() string { return []string{"a", "b", "d/a", "d/b", "d/e/a"}[m.rnd.IntN(5)] }
	var ref *cache.Ref
	switch op := m.rnd.IntN(20); {
	case len(m.refs) < 3 || op < 4:
		var parent *cache.Ref
		if len(m.refs) > 0 && op%2 == 0 {
			parent = m.pick()
		}
		if parent != nil {
			require.NoError(m.t, parent.Realise(m.ctx, m.remote.access()))
		}
		ref = m.step(parent, name(), fmt.Sprint(m.n), name()+"x", fmt.Sprint(m.n))
	case op < 6:
		ref = m.image(m.remote, name(), fmt.Sprint("i", m.n))
	case op < 8:
		parent := m.pick()
		require.NoError(m.t, parent.Realise(m.ctx, m.remote.access()))
		ref = m.without(parent, name(), "d/e")
	case op < 14:
		var parts []*cache.Ref
		for range 2 + m.rnd.IntN(3) {
			parts = append(parts, m.pick())
		}
		ref = m.merge(parts...)
	case op < 17:
		if ref = m.diff(m.pick(), m.pick()); ref == nil {
			return
		}
	case op < 18:
		m.check()
		m.forget()
		m.reopen()
		m.prune(cache.PruneOpt{All: true, MaxUsedSpace: 100_000})
		for id := range m.files {
			if ref, err := m.Get(m.ctx, id); err == nil {
				m.refs = append(m.refs, ref)
			}
		}
		return
	default:
		m.check()
		return
	}
	m.refs = append(m.refs, ref)
	if m.rnd.IntN(2) == 0 {
		m.look(ref)
	}
}

// look finds out what is in a tree, before or after that is made.
func (m *merger) look(ref *cache.Ref) {
	if _, ok := m.files[ref.ID()]; ok {
		return
	}
	if m.rnd.IntN(2) == 0 {
		m.files[ref.ID()] = m.unpacked(ref, m.remote.access())
		return
	}
	m.files[ref.ID()] = m.env.files(ref, m.remote.access())
}

func (m *merger) check() {
	for _, ref := range m.refs {
		m.look(ref)
		require.Equal(m.t, m.files[ref.ID()], m.env.files(ref, m.remote.access()))
		if m.rnd.IntN(4) == 0 {
			require.Equal(m.t, m.files[ref.ID()], m.unpacked(ref, m.remote.access()))
		}
	}
}

func (m *merger) forget() {
	m.release(m.refs...)
	m.refs = nil
}

func TestLongChainsAndManyInputsAreMerged(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		var chain *cache.Ref
		want := map[string]string{}
		for i := range 200 {
			name := fmt.Sprintf("c%d", i%50)
			next := e.step(chain, name, fmt.Sprint(i))
			want[name] = fmt.Sprint(i)
			e.release(chain)
			chain = next
		}
		var inputs []*cache.Ref
		for i := range 100 {
			in := chain.Clone()
			if i != 50 {
				in = e.step(nil, fmt.Sprintf("m%d", i), "m", "c7", fmt.Sprint("of ", i))
				want[fmt.Sprintf("m%d", i)] = "m"
			} else {
				want["c7"] = "of 99"
				e.release(in)
				in = chain.Clone()
			}
			inputs = append(inputs, in)
		}
		m := e.merge(inputs...)
		require.Equal(t, want, e.files(m, cache.Access{}))
		child := e.step(m, "top", "1")
		again := e.merge(child, m)
		require.Len(t, e.files(again, cache.Access{}), len(want)+1)
		layers, err := m.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
		require.NoError(t, err)
		require.Len(t, layers, 299)
		e.release(append(inputs, chain, m, child, again)...)
	})
}
