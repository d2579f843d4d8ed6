package blob

import (
	"bytes"
	"crypto/sha256"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var (
	cheap = kind{form: Uncompressed}
	dear  = kind{Gzip, 5}
)

func TestPiecesTakeNoMoreThanTheLimit(t *testing.T) {
	s := &stock{limit: dear.cost() + cheap.cost()}
	s.enter()
	a, b := s.get(dear), s.get(cheap)
	require.Equal(t, s.limit, s.taken)
	a.in = append(a.in, 1)
	a.more = true
	s.put(a)
	again := s.get(dear)
	require.Same(t, a, again, "what is there is used again")
	require.Empty(t, again.in)
	require.False(t, again.more)
	s.put(again)
	c := s.get(cheap)
	require.NotSame(t, b, c, "an idle piece of another kind makes room")
	require.Equal(t, 2*cheap.cost(), s.taken)
	s.put(b)
	s.put(c)
	s.leave()
	require.Zero(t, s.taken)
	require.Empty(t, s.kinds)
}

func TestAKindThatHasNothingIsServedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stock{limit: 2 * dear.cost()}
		s.enter()
		a, b := s.get(dear), s.get(dear)
		got := make(chan *piece, 2)
		go func() { got <- s.get(kind{Gzip, 6}) }()
		synctest.Wait()
		go func() { got <- s.get(dear) }()
		synctest.Wait()
		require.Empty(t, got)
		s.put(a)
		first := <-got
		require.Equal(t, kind{Gzip, 6}, first.kind)
		synctest.Wait()
		require.Empty(t, got)
		s.put(b)
		second := <-got
		require.Same(t, b, second)
		require.LessOrEqual(t, s.taken, s.limit)
		s.put(first)
		s.put(second)
		s.leave()
	})
}

// Layers of several forms share the memory; what one has done with does not become another's each time.
func TestPiecesOfOneKindAreNotGivenUpForAnotherAgainAndAgain(t *testing.T) {
	const rounds, atOnce = 400, 12
	s := &stock{limit: 24 << 20}
	s.enter()
	var mu sync.Mutex
	seen, most := map[*piece]bool{}, 0
	var wg sync.WaitGroup
	for _, k := range []kind{{Gzip, 1}, {Gzip, 2}, cheap} {
		for range atOnce {
			wg.Go(func() {
				for range rounds {
					p := s.get(k)
					mu.Lock()
					seen[p] = true
					mu.Unlock()
					runtime.Gosched()
					s.mu.Lock()
					most = max(most, s.taken)
					s.mu.Unlock()
					s.put(p)
				}
			})
		}
	}
	wg.Wait()
	s.leave()
	require.LessOrEqual(t, most, s.limit)
	require.Less(t, len(seen), rounds/2, "pieces were made for %d uses", 3*atOnce*rounds)
}

// Layers of all forms end, and are what they always are, if there is memory for one piece only.
func TestLayersThatShareLittleMemoryAllEnd(t *testing.T) {
	level := 3
	cs := &Compressors{stock: stock{limit: kind{EStargz, 5}.cost()}}
	in := layer(t, 6<<20)
	type result struct {
		form Compression
		got  []byte
		err  error
	}
	results := make(chan result)
	const each = 3
	for form := range forms {
		for n := range each {
			go func() {
				var out bytes.Buffer
				l := &level
				if form == EStargz || n == 0 {
					l = nil
				}
				w, err := cs.New(&out, form, l)
				if err == nil {
					_, err = io.CopyBuffer(struct{ io.Writer }{w}, bytes.NewReader(in), make([]byte, 50_000))
				}
				if closeErr := w.Close(); err == nil {
					err = closeErr
				}
				results <- result{form, out.Bytes(), err}
			}()
		}
	}
	for range each * len(forms) {
		r := <-results
		require.NoError(t, r.err, r.form)
		require.True(t, bytes.HasPrefix(decompress(t, r.got), in), r.form)
	}
	require.Zero(t, cs.stock.users)
	require.Zero(t, cs.stock.taken)
}

// A long row of entries without content is one member for the library.
func TestMembersHaveABoundedSize(t *testing.T) {
	in := links(t, 20_000)
	require.Greater(t, len(in), 2*memberSize)
	packed := compress(t, in, EStargz, nil, 1<<20)
	require.True(t, bytes.HasPrefix(decompress(t, packed), in))
	s := &stock{}
	m := newMembers(s, io.Discard, 5, sha256.New())
	m.written.Store(int64(len(in)))
	w, err := m.Writer(io.Discard)
	require.NoError(t, err)
	_, err = w.Write(in)
	require.NoError(t, err)
	require.LessOrEqual(t, cap(m.cur.in), memberSize)
	require.NoError(t, w.Close())
	require.NoError(t, m.end())
	require.Len(t, m.begins, 1)
	require.Positive(t, m.offset)
}

func TestOfAWriterThatIsGivenUpNothingStays(t *testing.T) {
	cs := &Compressors{}
	cs.stock.enter() // somebody else
	for form := range forms {
		for n, size := range []int{0, 100, 5 << 20} {
			w, err := cs.New(failAfter{new(int), n * 100, io.ErrShortWrite}, form, nil)
			require.NoError(t, err)
			_, _ = w.Write(layer(t, size)[:size])
			_ = w.Close()
		}
	}
	out := 0
	for k, of := range cs.stock.kinds {
		out += len(of.idle) * k.cost()
	}
	require.Equal(t, out, cs.stock.taken, "all pieces are idle")
	require.NotZero(t, out)
	cs.stock.leave()
	require.Zero(t, cs.stock.taken)
}

func BenchmarkManySmallLayers(b *testing.B) {
	in := text(10_000)
	for _, form := range []Compression{Gzip, Zstd, EStargz} {
		b.Run(string(form), func(b *testing.B) {
			var cs Compressors
			for b.Loop() {
				w, err := cs.New(io.Discard, form, nil)
				require.NoError(b, err)
				_, _ = w.Write(in)
				_ = w.Close()
			}
		})
	}
}
