package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// naive is what a history should hold, in the simplest words.
type naive struct {
	age     time.Duration
	keep    int
	records []*naiveRecord
}

type naiveRecord struct {
	ref    string
	ended  time.Time
	pinned bool
}

// sweep removes a record if it is too old and too many that are not pinned have ended after it.
func (m *naive) sweep(now time.Time) {
	m.records = slices.DeleteFunc(slices.Clone(m.records), func(r *naiveRecord) bool {
		newer := 0
		for _, o := range m.records {
			if !o.pinned && (o.ended.After(r.ended) || o.ended.Equal(r.ended) && o.ref < r.ref) {
				newer++
			}
		}
		return !r.pinned && newer >= m.keep && now.Sub(r.ended) > m.age
	})
}

func (m *naive) refs() []string {
	out := []string{}
	for _, r := range m.records {
		out = append(out, r.ref)
	}
	return out
}

// Records go when they are past both bounds, and no others, however the clock goes, over restarts too.
func TestRecordsGoWhenTheyAreTooManyAndTooOld(t *testing.T) {
	for name, c := range map[string]struct {
		keep, builds, tick int // a tick is how far the clock goes at most in a step, in seconds
	}{
		"few are kept":       {keep: 10, builds: 2500, tick: 600},
		"none need be kept":  {keep: 0, builds: 500, tick: 600},
		"the number decides": {keep: 60, builds: 1000, tick: 4000},
		"the age decides":    {keep: 3, builds: 1000, tick: 120},
	} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(3, uint64(c.builds))) //nolint:gosec // a test
			now := time.Unix(1_000_000_000, 0)
			m := &naive{age: time.Hour, keep: c.keep}
			cfg := history.Config{
				Dir: t.TempDir(), MaxAge: m.age, MaxEntries: m.keep, TraceGrace: time.Hour,
				Now: func() time.Time { return now },
			}
			s := history.Open(t.Context(), cfg)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			pick := func() *naiveRecord {
				if len(m.records) == 0 {
					return nil
				}
				return m.records[rnd.IntN(len(m.records))]
			}
			for n := 0; n < c.builds; {
				now = now.Add(time.Duration(rnd.IntN(c.tick)) * time.Second)
				switch k := rnd.IntN(100); {
				case k == 0: // somebody sets the clock
					now = now.Add(time.Duration(rnd.IntN(7200)-3600) * time.Second)
				case k == 1:
					require.NoError(t, s.Close())
					s = history.Open(t.Context(), cfg)
				case k < 15:
					if r := pick(); r != nil {
						r.pinned = rnd.IntN(3) == 0
						require.NoError(t, s.Pin(t.Context(), r.ref, r.pinned))
					}
				case k < 25:
					if r := pick(); r != nil {
						require.NoError(t, s.Delete(t.Context(), r.ref))
						m.records = slices.DeleteFunc(m.records, func(o *naiveRecord) bool { return o == r })
					}
				default:
					ref := fmt.Sprint("build", n)
					n++
					told := feed.New("")
					b := s.Begin(&history.Record{Ref: ref})
					s.Sweep(t.Context())
					told.Close()
					b.End(history.Outcome{Feed: told})
					m.sweep(now)
					m.records = append(m.records, &naiveRecord{ref: ref, ended: now})
				}
				// There may be more records than may stay until somebody sweeps.
				got := refs(list(t, s, nil))
				slices.Sort(got)
				want := m.refs()
				slices.Sort(want)
				require.Equal(t, want, got)
				s.Sweep(t.Context())
				m.sweep(now)
				require.Len(t, list(t, s, nil), len(m.records), "after %d builds", n)
			}
			require.GreaterOrEqual(t, len(m.records), c.keep)
		})
	}
}
