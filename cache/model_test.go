package cache_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

// model does what a cache does, in the plainest way.
type model struct {
	*env
	rnd *rand.Rand
	// trees has the files of every record that should be there, by id.
	trees   map[string]*modelTree
	refs    []*cache.Ref
	mutable []*cache.MutableRef
	remote  *remote
	n       int
}

type modelTree struct {
	parent   string
	files    map[string]string
	mutable  bool
	retain   bool
	twin     string // of a mutable: the immutable one committed last
	twinOf   string
	handles  int
	settled  bool
	children int
}

func TestHandlesBehaveLikeTheModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{
				env: newEnv(t, snapshot.Overlay), rnd: rand.New(rand.NewPCG(seed, 7)),
				trees: map[string]*modelTree{}, remote: newRemote(),
			}
			for range 150 {
				m.step()
				m.compare()
			}
			m.releaseAll()
			m.compare()
		})
	}
}

func (m *model) step() {
	switch op := m.rnd.IntN(100); {
	case op < 20:
		m.newMutable()
	case op < 40:
		m.commit()
	case op < 55:
		m.releaseOne()
	case op < 65:
		m.get()
	case op < 74:
		m.getMutable()
	case op < 80:
		m.addBlob()
	case op < 86:
		m.read()
	case op < 91:
		m.layers()
	case op < 95:
		m.pruneAll()
	case op < 97:
		m.releaseAll()
		m.reopen()
	default:
		m.discard()
	}
}

func (m *model) pick() *cache.Ref {
	if len(m.refs) == 0 || m.rnd.IntN(4) == 0 {
		return nil
	}
	return m.refs[m.rnd.IntN(len(m.refs))]
}

func (m *model) newMutable() {
	parent := m.pick()
	retain := m.rnd.IntN(3) == 0
	ref, err := m.New(m.ctx, parent, m.remote.access(), cache.NewOpt{Retain: retain})
	require.NoError(m.t, err)
	tree := &modelTree{mutable: true, retain: retain, handles: 1, files: map[string]string{}}
	if parent != nil {
		tree.parent = parent.ID()
		m.settle(parent.ID())
		maps.Copy(tree.files, m.trees[parent.ID()].files)
		m.trees[parent.ID()].children++
	}
	m.trees[ref.ID()] = tree
	m.mutable = append(m.mutable, ref)
	m.change(ref)
}

// settle is what happens to a tree when it is built upon or read as a blob: the mutable one that
// it came from is no more.
func (m *model) settle(id string) {
	tree := m.trees[id]
	if tree.settled = true; tree.twinOf != "" {
		m.forget(tree.twinOf)
		tree.twinOf = ""
	}
}

func (m *model) forget(id string) {
	if p := m.trees[m.trees[id].parent]; p != nil {
		p.children--
	}
	delete(m.trees, id)
}

func (m *model) change(ref *cache.MutableRef) {
	m.n++
	name, content := fmt.Sprintf("f%d", m.rnd.IntN(5)), fmt.Sprint(m.n)
	dir, release := upper(m.t, ref)
	require.NoError(m.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	require.NoError(m.t, release())
	m.trees[ref.ID()].files[name] = content
}

func (m *model) takeMutable() *cache.MutableRef {
	if len(m.mutable) == 0 {
		return nil
	}
	i := m.rnd.IntN(len(m.mutable))
	ref := m.mutable[i]
	m.mutable = slices.Delete(m.mutable, i, i+1)
	return ref
}

func (m *model) commit() {
	ref := m.takeMutable()
	if ref == nil {
		return
	}
	im, err := ref.Commit(m.ctx)
	require.NoError(m.t, err)
	_, err = ref.Commit(m.ctx)
	require.Error(m.t, err, "the handle is used up")
	m.refs = append(m.refs, im)
	tree := m.trees[ref.ID()]
	if !tree.retain {
		require.Equal(m.t, ref.ID(), im.ID())
		tree.mutable = false
		return
	}
	tree.handles, tree.twin = 0, im.ID()
	m.trees[im.ID()] = &modelTree{parent: tree.parent, files: maps.Clone(tree.files), handles: 1, twinOf: ref.ID()}
	if p := m.trees[tree.parent]; p != nil {
		p.children++
	}
}

func (m *model) releaseOne() {
	if m.rnd.IntN(2) == 0 && len(m.refs) > 0 {
		i := m.rnd.IntN(len(m.refs))
		m.release(m.refs[i])
		m.trees[m.refs[i].ID()].handles--
		m.refs = slices.Delete(m.refs, i, i+1)
		return
	}
	if ref := m.takeMutable(); ref != nil {
		require.NoError(m.t, ref.Release(m.ctx))
		if m.trees[ref.ID()].handles = 0; !m.trees[ref.ID()].retain {
			m.forget(ref.ID())
		}
	}
}

func (m *model) discard() {
	if ref := m.takeMutable(); ref != nil {
		require.NoError(m.t, ref.Discard(m.ctx))
		m.forget(ref.ID())
	}
}

func (m *model) releaseAll() {
	for len(m.refs)+len(m.mutable) > 0 {
		m.releaseOne()
	}
}

func (m *model) anyID() (string, *modelTree) {
	ids := slices.Sorted(maps.Keys(m.trees))
	if len(ids) == 0 {
		return "", nil
	}
	id := ids[m.rnd.IntN(len(ids))]
	return id, m.trees[id]
}

func (m *model) get() {
	id, tree := m.anyID()
	if tree == nil {
		return
	}
	ref, err := m.Get(m.ctx, id)
	if tree.mutable {
		require.ErrorIs(m.t, err, cache.ErrNotFound)
		return
	}
	require.NoError(m.t, err)
	m.refs = append(m.refs, ref)
	tree.handles++
}

func (m *model) getMutable() {
	id, tree := m.anyID()
	if tree == nil {
		return
	}
	ref, err := m.Reopen(id)
	if !tree.mutable {
		require.ErrorIs(m.t, err, cache.ErrNotFound)
		return
	}
	twin := m.trees[tree.twin]
	if tree.handles > 0 || twin != nil && twin.handles > 0 {
		require.ErrorIs(m.t, err, cache.ErrLocked)
		return
	}
	require.NoError(m.t, err)
	if twin != nil {
		_, err = m.Get(m.ctx, tree.twin)
		require.ErrorIs(m.t, err, cache.ErrNotFound, "its tree may be about to change")
	}
	switch m.rnd.IntN(3) {
	case 0:
		require.NoError(m.t, ref.Release(m.ctx))
		return
	case 1:
		im, err := ref.Commit(m.ctx)
		require.NoError(m.t, err)
		m.refs = append(m.refs, im)
		if twin != nil {
			require.Equal(m.t, tree.twin, im.ID(), "nothing was written")
			twin.handles++
			return
		}
		tree.twin = im.ID()
		m.trees[im.ID()] = &modelTree{parent: tree.parent, files: maps.Clone(tree.files), handles: 1, twinOf: id}
		if p := m.trees[tree.parent]; p != nil {
			p.children++
		}
		return
	}
	require.NoError(m.t, ref.BeginWrite(m.ctx))
	if twin != nil {
		m.forget(tree.twin)
	}
	tree.twin, tree.handles = "", 1
	m.mutable = append(m.mutable, ref)
	m.change(ref)
}

func (m *model) addBlob() {
	name := fmt.Sprintf("blob%d", m.rnd.IntN(4))
	ref := m.image(m.remote, name)
	m.refs = append(m.refs, ref)
	if m.trees[ref.ID()] == nil {
		m.trees[ref.ID()] = &modelTree{files: map[string]string{name: "content of " + name}, settled: true}
	}
	m.trees[ref.ID()].handles++
}

func (m *model) read() {
	if ref := m.pick(); ref != nil {
		require.Equal(m.t, m.trees[ref.ID()].files, m.files(ref, m.remote.access()))
	}
}

func (m *model) layers() {
	ref := m.pick()
	if ref == nil {
		return
	}
	layers, err := ref.Layers(m.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, m.remote.access())
	require.NoError(m.t, err)
	depth := 0
	for id := ref.ID(); id != ""; id = m.trees[id].parent {
		m.settle(id)
		depth++
	}
	require.Len(m.t, layers, depth)
}

func (m *model) pruneAll() {
	m.prune(cache.PruneOpt{})
	for again := true; again; {
		again = false
		for id, tree := range m.trees {
			twin := m.trees[tree.twin]
			busy := tree.handles > 0 || tree.children > 0 || twin != nil && twin.handles+twin.children > 0
			if tree.twinOf != "" || busy {
				continue
			}
			if twin != nil {
				m.forget(tree.twin)
			}
			m.forget(id)
			again = true
			break
		}
	}
}

// compare compares the lists of records.
func (m *model) compare() {
	var want, got []string
	for id, tree := range m.trees {
		if tree.twinOf == "" {
			want = append(want, id)
		}
	}
	for _, u := range m.usage() {
		got = append(got, u.ID)
		tree := m.trees[u.ID]
		require.NotNil(m.t, tree)
		busy := tree.handles > 0
		if twin := m.trees[tree.twin]; twin != nil {
			busy = busy || twin.handles > 0
		}
		require.Equal(m.t, busy, u.InUse)
	}
	require.ElementsMatch(m.t, want, got)
}

func TestManyUsersAtOnce(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	r := newRemote()
	base := e.image(r, "a", "b")
	shared := e.newTree(nil, cache.NewOpt{Retain: true, Description: cache.Description{Type: cache.CacheMount}})
	require.NoError(t, shared.Release(e.ctx))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range 15 {
				ref := base.Clone()
				for range rnd.IntN(4) {
					m, err := e.New(e.ctx, ref, r.access(), cache.NewOpt{})
					if err != nil {
						t.Errorf("new: %v", err)
						return
					}
					_ = ref.Release(e.ctx)
					if ref, err = m.Commit(e.ctx); err != nil {
						t.Errorf("commit: %v", err)
						return
					}
				}
				if i%5 == 0 {
					if _, err := ref.Layers(e.ctx, blob.CompressionOpt{}, r.access()); err != nil {
						t.Errorf("layers: %v", err)
					}
				}
				if m, err := e.GetMutable(e.ctx, shared.ID()); err == nil {
					_ = m.SetValue("who", []byte{byte(w)}, "")
					_ = m.Release(e.ctx)
				} else if !errors.Is(err, cache.ErrLocked) {
					t.Errorf("get mutable: %v", err)
				}
				_ = ref.Release(e.ctx)
				if i%4 == 0 {
					if err := e.Prune(e.ctx, []cache.PruneOpt{{Filters: []string{"type==regular"}, KeepDuration: 1}}, func(cache.Usage) {}); err != nil {
						t.Errorf("prune: %v", err)
					}
				}
				if _, err := e.DiskUsage(e.ctx, nil); err != nil {
					t.Errorf("usage: %v", err)
				}
			}
		})
	}
	wg.Wait()
	e.release(base)
}
