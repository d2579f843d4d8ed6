package schedule_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// private is a source that only the sessions named may read. They are answered
// once gate is closed.
func private(gate chan struct{}, may ...string) *spec {
	return &spec{name: "private", source: true, value: fixed("v"), identify: func(ctx context.Context, env *schedule.Env) error {
		<-gate
		ids := env.SessionIDs()
		if !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(may, id) }) {
			return session.BlameAll(ids, fmt.Errorf("%v may not", ids))
		}
		return nil
	}}
}

func TestASourceIsJoinedByThoseWhoMayAskForIt(t *testing.T) {
	open := make(chan struct{})
	close(open)
	t.Run("and by nobody else while another Job has it", func(t *testing.T) {
		w := newWorld(t, private(open, "a", "c"), &spec{name: "step"})
		c := &chart{}
		g := c.graph(c.add("step", c.add("private")))
		ja := w.s.NewJob([]string{"a"}, feed.New(""), nil)
		_, err := w.buildIn(ja, g)
		require.NoError(t, err)
		jb := w.s.NewJob([]string{"b"}, feed.New(""), nil)
		_, err = w.buildIn(jb, g)
		require.ErrorContains(t, err, "failed to load cache key: [b] may not")
		jc := w.s.NewJob([]string{"c"}, feed.New(""), nil)
		_, err = w.buildIn(jc, g)
		require.NoError(t, err)
		require.Equal(t, 1, w.ran("step"), "what may be shared is")
		for _, j := range []*schedule.Job{ja, jb, jc} {
			j.Close()
		}
	})
	for _, order := range [][]string{{"b", "a"}, {"a", "b"}, {"b", "c", "a"}, {"b", "a", "c"}} {
		t.Run(fmt.Sprint("when they come at once: ", order), func(t *testing.T) {
			w := newWorld(t, nil...)
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				w.specs["private"], w.specs["step"] = private(gate, "a"), &spec{name: "step"}
				c := &chart{}
				g := c.graph(c.add("step", c.add("private")))
				errs := make([]error, len(order))
				var jobs []*schedule.Job
				for i, session := range order {
					j := w.s.NewJob([]string{session}, feed.New(""), nil)
					jobs = append(jobs, j)
					go func() { _, errs[i] = w.buildIn(j, g) }()
					synctest.Wait()
				}
				close(gate)
				synctest.Wait()
				for i, session := range order {
					if session == "a" {
						require.NoError(t, errs[i])
					} else {
						require.ErrorContains(t, errs[i], "["+session+"] may not")
					}
				}
				for _, j := range jobs {
					j.Close()
				}
				w.s.Wait()
			})
		})
	}
	t.Run("even if the first was refused and is still there", func(t *testing.T) {
		w := newWorld(t, private(open, "a"), &spec{name: "step"})
		c := &chart{}
		g := c.graph(c.add("step", c.add("private")))
		jb := w.s.NewJob([]string{"b"}, feed.New(""), nil)
		_, err := w.buildIn(jb, g)
		require.ErrorContains(t, err, "[b] may not")
		ja := w.s.NewJob([]string{"a"}, feed.New(""), nil)
		_, err = w.buildIn(ja, g)
		require.NoError(t, err)
		_, err = w.buildIn(jb, g)
		require.ErrorContains(t, err, "[b] may not")
		ja.Close()
		jb.Close()
	})
}
