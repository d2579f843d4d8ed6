package llb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEnvironmentsAreThoseOfAPlainList makes changes at random to environments that share their
// beginnings, and compares them with lists that are changed in the plain way.
func TestEnvironmentsAreThoseOfAPlainList(t *testing.T) {
	type pair struct{ key, value string }
	type state struct {
		env  *envNode
		want []pair
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	states := []state{{}}
	for i := range 20_000 {
		s := states[rnd.IntN(len(states))]
		key := fmt.Sprint("k", rnd.IntN(20))
		rest := slices.DeleteFunc(slices.Clone(s.want), func(p pair) bool { return p.key == key })
		if rnd.IntN(5) == 0 {
			s = state{s.env.del(key), rest}
		} else {
			s = state{s.env.add(key, fmt.Sprint(i)), append(rest, pair{key, fmt.Sprint(i)})}
		}
		var want []string
		for _, p := range s.want {
			want = append(want, p.key+"="+p.value)
		}
		if diff := cmp.Diff(want, s.env.list()); diff != "" {
			t.Fatal(diff)
		}
		if s.env.depth > 2*20+spareNodes+1 {
			t.Fatalf("%d nodes for %d variables", s.env.depth, len(want))
		}
		if len(states) < 50 {
			states = append(states, s)
		} else {
			states[rnd.IntN(len(states))] = s
		}
	}
}
