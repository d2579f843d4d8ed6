package key_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/key"
)

func open(t *testing.T, path string) *key.Store {
	t.Helper()
	s, err := key.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func op(name string) key.Op { return key.Op{Digest: digest.FromString(name)} }

func root(name string) key.ID { return key.Root(digest.FromString(name), 0) }

func alts(ids ...key.ID) []key.Alt {
	var as []key.Alt
	for _, id := range ids {
		as = append(as, key.Alt{Key: id})
	}
	return as
}

func TestKeyIsFoundWhenEveryInputLinksToIt(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	a, b, c := root("a"), root("b"), root("c")
	id := s.Save(op("x"), [][]key.Alt{alts(a), alts(b)})
	require.Equal(t, []key.ID{id}, s.Find(op("x"), [][]key.Alt{alts(a), alts(b)}))
	require.Empty(t, s.Find(op("x"), [][]key.Alt{alts(a), alts(c)}))
	require.Empty(t, s.Find(op("x"), [][]key.Alt{alts(b), alts(a)}), "the order of inputs counts")
	require.Empty(t, s.Find(op("x"), [][]key.Alt{alts(a)}), "the number of inputs counts")
	require.Empty(t, s.Find(op("y"), [][]key.Alt{alts(a), alts(b)}))
	require.Empty(t, s.Find(key.Op{Digest: op("x").Digest, Output: 1}, [][]key.Alt{alts(a), alts(b)}))
	require.Empty(t, s.Find(op("x"), [][]key.Alt{{{Key: a, Selector: "/sub"}}, alts(b)}))
	require.Equal(t, id, s.Save(op("x"), [][]key.Alt{alts(a), alts(b)}), "saved once")
}

func TestAlternativesAreLinkedOnceOneOfThemIsFound(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	def, content, other := root("def"), key.Content(digest.FromString("bytes")), root("other")
	id := s.Save(op("x"), [][]key.Alt{alts(def, content)})
	require.Empty(t, s.Find(op("x"), [][]key.Alt{alts(other)}))
	require.Equal(t, []key.ID{id}, s.Find(op("x"), [][]key.Alt{alts(other, content)}))
	require.Equal(t, []key.ID{id}, s.Find(op("x"), [][]key.Alt{alts(other)}), "by definition from now on")
	p, ok := s.Parts(id)
	require.True(t, ok)
	require.Len(t, p.Links, 3)
}

func TestResultsAreNewestFirstAndBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	id := root("a")
	for i, name := range []string{"r1", "r2", "r3", "r1", "r4", "r5"} {
		s.AddResult(id, key.Result{ID: name, CreatedAt: time.Unix(int64(i), 0).UTC()})
	}
	var names []string
	for _, r := range s.Results(id) {
		names = append(names, r.ID)
	}
	require.Equal(t, []string{"r5", "r4", "r1", "r3"}, names)
}

func TestDroppedResultsTakeKeysThatLeadNowhere(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	a := root("a")
	x := s.Save(op("x"), [][]key.Alt{alts(a)})
	y := s.Save(op("y"), [][]key.Alt{alts(x)})
	s.AddResult(x, key.Result{ID: "rx"})
	s.AddResult(y, key.Result{ID: "ry"})
	s.DropResults([]string{"rx"})
	require.Equal(t, []key.ID{x}, s.Find(op("x"), [][]key.Alt{alts(a)}), "x still leads to y")
	require.Empty(t, s.Results(x))
	s.DropResults([]string{"ry"})
	require.Empty(t, s.Find(op("y"), [][]key.Alt{alts(x)}))
	require.Empty(t, s.Find(op("x"), [][]key.Alt{alts(a)}))
}

func TestStoreSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s, err := key.Open(path)
	require.NoError(t, err)
	id := s.Save(op("x"), [][]key.Alt{alts(root("a"))})
	s.AddResult(id, key.Result{ID: "r", CreatedAt: time.Unix(7, 9).UTC()})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "twice is fine")
	s = open(t, path)
	require.Equal(t, []key.ID{id}, s.Find(op("x"), [][]key.Alt{alts(root("a"))}))
	require.Equal(t, []key.Result{{ID: "r", CreatedAt: time.Unix(7, 9).UTC()}}, s.Results(id))
}

func TestDamagedStoreIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"something else":              func([]byte) []byte { return []byte("this is not a database, and long enough to look like a page") },
		"zeros after its first pages": func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			s := open(t, path)
			s.AddResult(root("a"), key.Result{ID: "r"})
			require.NoError(t, s.Close())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(b), 0o600))
			s = open(t, path)
			require.Empty(t, s.Results(root("a")))
			s.AddResult(root("a"), key.Result{ID: "r"})
			require.Len(t, s.Results(root("a")), 1)
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
		})
	}
}

func TestWhatIsFlushedOutlivesACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	require.False(t, s.Pending())
	id := s.Save(op("x"), [][]key.Alt{alts(root("a"))})
	require.True(t, s.Pending())
	s.Flush()
	require.False(t, s.Pending())

	left, err := os.ReadFile(path)
	require.NoError(t, err)
	after := filepath.Join(t.TempDir(), "keys.db")
	require.NoError(t, os.WriteFile(after, left, 0o600))
	require.Equal(t, []key.ID{id}, open(t, after).Find(op("x"), [][]key.Alt{alts(root("a"))}))
}

func TestAStoreThatIsInUseIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	id := s.Save(op("x"), [][]key.Alt{alts(root("a"))})
	_, err := key.Open(path)
	require.ErrorContains(t, err, "timeout")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, []key.ID{id}, s.Find(op("x"), [][]key.Alt{alts(root("a"))}))
}

func TestAllKeysAreWalkedOver(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	const many = 3000 // more than are read at once
	want := map[key.ID]int{}
	for i := range many {
		from := root(fmt.Sprint(i))
		id := s.Save(op("x"), [][]key.Alt{alts(from)})
		s.AddResult(id, key.Result{ID: fmt.Sprint("r", i), CreatedAt: time.Unix(1, 0).UTC()})
		want[from], want[id] = 0, 1
	}
	alone := root("alone")
	s.AddResult(alone, key.Result{ID: "of a source", CreatedAt: time.Unix(2, 0).UTC()})
	want[alone] = 1
	got := map[key.ID]int{}
	require.NoError(t, s.Walk(t.Context(), func(e key.Entry) error {
		require.NotContains(t, got, e.ID)
		got[e.ID] = len(e.Results)
		return nil
	}))
	require.Equal(t, want, got)

	id := s.Owners("r7")[0]
	e, ok := s.Entry(id)
	require.True(t, ok)
	require.Equal(t, []key.Link{{Input: 0, Alt: key.Alt{Key: root("7")}}}, e.Parts.Links)
	parsed, err := key.ParseID(id.String())
	require.NoError(t, err)
	require.Equal(t, id, parsed)
	_, err = key.ParseID("abc")
	require.EqualError(t, err, `"abc" is no key: 32 hexadecimal digits are one`)

	enough := errors.New("enough")
	require.ErrorIs(t, s.Walk(t.Context(), func(key.Entry) error { return enough }), enough)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Walk(ctx, func(key.Entry) error { return nil }), context.Canceled)
}
