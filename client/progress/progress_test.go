package progress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/vt100"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

func noEnv(string) string { return "" }

func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

// script feeds a display as a build would, in the time of a synctest bubble.
type script struct {
	*testing.T
	d *Display
}

func (s script) dgst(name string) digest.Digest { return digest.FromString(name) }

func at() *time.Time {
	now := time.Now()
	return &now
}

// announce makes vertices known.
func (s script) announce(names ...string) {
	for _, n := range names {
		s.d.Emit(event.Batch{Vertices: []event.Vertex{{Digest: s.dgst(n), Name: n}}})
	}
}

// step is a vertex that runs.
type step struct {
	script
	v event.Vertex
}

func (s script) start(name string, change ...func(*event.Vertex)) *step {
	st := &step{s, event.Vertex{Digest: s.dgst(name), Name: name, Started: at()}}
	for _, f := range change {
		f(&st.v)
	}
	s.d.Emit(event.Batch{Vertices: []event.Vertex{st.v}})
	return st
}

func (s *step) log(text string) {
	s.d.Emit(event.Batch{Logs: []event.Log{{Vertex: s.v.Digest, Stream: 1, Data: []byte(text), Timestamp: time.Now()}}})
}

func (s *step) stderr(text string) {
	s.d.Emit(event.Batch{Logs: []event.Log{{Vertex: s.v.Digest, Stream: 2, Data: []byte(text), Timestamp: time.Now()}}})
}

func (s *step) status(id string, current, total int64, done bool) {
	st := event.Status{ID: id, Vertex: s.v.Digest, Current: current, Total: total, Timestamp: time.Now(), Started: s.v.Started}
	if done {
		st.Completed = at()
	}
	s.d.Emit(event.Batch{Statuses: []event.Status{st}})
}

func (s *step) warn(short string) {
	s.d.Emit(event.Batch{Warnings: []event.Warning{{Vertex: s.v.Digest, Level: 1, Short: []byte(short)}}})
}

func (s *step) end(err string) {
	s.v.Completed, s.v.Error = at(), err
	s.d.Emit(event.Batch{Vertices: []event.Vertex{s.v}})
}

func (s script) cached(name string) {
	now := at()
	s.d.Emit(event.Batch{Vertices: []event.Vertex{{
		Digest: s.dgst(name), Name: name, Started: now, Completed: now, Cached: true,
	}}})
}

// play runs a build against a display and returns once the last frame is drawn.
func play(t *testing.T, r func() renderer, build func(script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDisplay(r(), defaultRate)
		done := make(chan error)
		go func() { done <- d.Run(context.Background()) }()
		build(script{t, d})
		d.Close()
		require.NoError(t, <-done)
	})
}

func plainOutput(t *testing.T, getenv func(string) string, build func(script)) string {
	t.Helper()
	var out bytes.Buffer
	play(t, func() renderer { return newPlain(&out, getenv) }, build)
	return out.String()
}

func sleep(s float64) {
	<-time.After(time.Duration(s * float64(time.Second)))
	synctest.Wait()
}

func TestPlainPrintsABlockForEachStep(t *testing.T) {
	got := plainOutput(t, noEnv, func(s script) {
		s.announce("[3/3] RUN false", "[2/3] RUN true", "[1/3] FROM a")
		from := s.start("[1/3] FROM a")
		from.status("resolve a", 0, 0, true)
		from.status("sha256:1", 500_000, 2_000_000, false)
		sleep(1)
		from.status("sha256:1", 510_000, 2_000_000, false) // too little to print
		sleep(1)
		from.status("sha256:1", 1_234_567, 2_000_000, false)
		sleep(1)
		from.status("sha256:1", 2_000_000, 2_000_000, true)
		from.end("")
		s.cached("[2/3] RUN true")
		run := s.start("[3/3] RUN false")
		run.warn("careful")
		run.log("one\ntw")
		run.stderr("error\n")
		sleep(12.5)
		run.log("o\r\n\nend")
		sleep(100)
		run.log(" of it")
		run.end("process failed")
	})
	require.Equal(t, `#1 [1/3] FROM a
#1 resolve a done
#1 sha256:1 500.00kB / 2.00MB
#1 sha256:1 1.23MB / 2.00MB 2.0s
#1 sha256:1 2.00MB / 2.00MB 3.0s done
#1 DONE 3.0s

#2 [2/3] RUN true
#2 CACHED

#3 [3/3] RUN false
#3 WARN: careful
#3 0.000 one
#3 0.000 error
#3 0.000 two
#3 12.50 
#3 12.50 end of it
#3 ERROR: process failed
------
 > [3/3] RUN false:
0.000 one
0.000 error
0.000 two
12.50 
12.50 end of it
------
`, got)
}

func TestPlainSharesItsTimeAmongStepsThatRunTogether(t *testing.T) {
	got := plainOutput(t, noEnv, func(s script) {
		a := s.start("a")
		b := s.start("b")
		for range 14 {
			a.log("from a\n")
			b.log("from b\n")
			sleep(1)
		}
		c := s.start("c")
		c.end("")
		a.end("context canceled")
		b.end("rpc error: context canceled")
	})
	var turns []string
	for _, l := range strings.Split(got, "\n") {
		if f := strings.Fields(l); len(f) > 1 && (len(turns) == 0 || turns[len(turns)-1] != f[0]) {
			turns = append(turns, f[0])
		}
	}
	require.Equal(t, []string{"#1", "#2", "#1", "#2", "#3"}, turns, "%s", got)
	require.Contains(t, got, "#1 ...\n\n#2 b\n")
	require.Equal(t, 14, strings.Count(got, "from b"))
	require.Contains(t, got, "#2 CANCELED")
	require.NotContains(t, got, "------", "a canceled step did not fail")
}

func TestPlainShowsAGroupAsOneStep(t *testing.T) {
	group := func(weak bool) func(*event.Vertex) {
		return func(v *event.Vertex) {
			v.ProgressGroup = &pb.ProgressGroup{Id: "g", Name: "COPY --link a .", Weak: weak}
		}
	}
	t.Run("with its weak member hidden until another one starts", func(t *testing.T) {
		got := plainOutput(t, noEnv, func(s script) {
			weak := s.start("copy", group(true))
			sleep(1)
			weak.end("")
			sleep(1)
			link := s.start("LINK copy", group(false))
			link.status("merging", 0, 0, true)
			link.end("")
		})
		require.Equal(t, "#1 COPY --link a .\n#1 merging done\n#1 DONE 1.0s\n", got)
	})
	t.Run("not at all if only weak members run", func(t *testing.T) {
		require.Empty(t, plainOutput(t, noEnv, func(s script) { s.start("copy", group(true)).end("") }))
	})
	t.Run("if a weak member fails", func(t *testing.T) {
		got := plainOutput(t, noEnv, func(s script) { s.start("copy", group(true)).end("no such file") })
		require.Contains(t, got, "#1 ERROR: no such file\n")
		require.Contains(t, got, " > copy:\n")
	})
}

func TestPlainCutsNamesIfAsked(t *testing.T) {
	name := strings.Repeat("x", 90)
	build := func(s script) { s.start(name).end("") }
	require.Contains(t, plainOutput(t, env("PROGRESS_NO_TRUNC", "0"), build), "#1 "+name[:72]+"...\n")
	require.Contains(t, plainOutput(t, env("PROGRESS_NO_TRUNC", "1"), build), "#1 "+name+"\n")
	require.Contains(t, plainOutput(t, noEnv, build), "#1 "+name+"\n")
}

func TestPlainKeepsTheLastLinesOfAFailure(t *testing.T) {
	got := plainOutput(t, noEnv, func(s script) {
		st := s.start("run")
		for range 15 {
			st.log("x")
			st.log("y\n")
		}
		st.end("failed")
	})
	_, block, _ := strings.Cut(got, "------\n")
	require.Equal(t, 10, strings.Count(block, "0.000 xy\n"))
}

func TestAStepThatRunsAgainIsShownAgain(t *testing.T) {
	got := plainOutput(t, noEnv, func(s script) {
		first := s.start("FROM a")
		sleep(1)
		first.end("")
		sleep(1)
		second := s.start("FROM a")
		second.status("extracting", 0, 0, true)
		sleep(2)
		second.end("")
	})
	require.Equal(t, "#1 FROM a\n#1 DONE 1.0s\n\n#1 FROM a\n#1 extracting done\n#1 DONE 3.0s\n", got)
}

func TestJSONHasOneObjectALine(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	d, err := New(RawJSON, w, noEnv)
	require.NoError(t, err)
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d.Emit(event.Batch{
		Vertices: []event.Vertex{{Digest: "sha256:a", Name: "n", Started: &now, ProgressGroup: &pb.ProgressGroup{Id: "g", Weak: true}}},
		Statuses: []event.Status{{ID: "s", Vertex: "sha256:a", Timestamp: now}},
	})
	d.Emit(event.Batch{
		Logs:     []event.Log{{Vertex: "sha256:a", Stream: 1, Data: []byte("hi"), Timestamp: now}},
		Warnings: []event.Warning{{Vertex: "sha256:a", Level: 1, Short: []byte("w")}},
	})
	d.Close()
	d.Emit(event.Batch{Vertices: []event.Vertex{{Name: "late"}}})
	require.NoError(t, d.Run(t.Context()))
	w.Close()
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	want := `{"vertexes":[{"digest":"sha256:a","name":"n","started":"2026-01-02T03:04:05.000000006Z","progressGroup":{"id":"g","weak":true}}],"statuses":[{"id":"s","vertex":"sha256:a","current":0,"timestamp":"2026-01-02T03:04:05.000000006Z"}]}
{"logs":[{"vertex":"sha256:a","stream":1,"data":"aGk=","timestamp":"2026-01-02T03:04:05.000000006Z"}],"warnings":[{"vertex":"sha256:a","level":1,"short":"dw=="}]}
`
	require.Equal(t, want, out.String())
	require.True(t, json.Valid(bytes.Split(out.Bytes(), []byte("\n"))[0]))
}

func TestModes(t *testing.T) {
	for _, name := range []string{"", "auto", "plain", "tty", "quiet", "rawjson"} {
		_, err := ParseMode(name)
		require.NoError(t, err)
	}
	_, err := ParseMode("loud")
	require.EqualError(t, err, "invalid progress mode loud")

	f, err := os.Create(t.TempDir() + "/out")
	require.NoError(t, err)
	defer f.Close()
	_, err = New(TTY, f, noEnv)
	require.EqualError(t, err, "failed to get console: provided file is not a console")
	d, err := New(Auto, f, noEnv)
	require.NoError(t, err)
	require.IsType(t, &plain{}, d.renderer)
	d, err = New(Quiet, f, noEnv)
	require.NoError(t, err)
	script{t, d}.start("x").end("failed")
	d.Close()
	require.NoError(t, d.Run(t.Context()))
	st, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, st.Size())
}

// terminal is an emulated terminal with what was written to it.
type terminal struct {
	*vt100.VT100
	raw  bytes.Buffer
	cols int
	rows int
}

func newTerminal(cols, rows int) *terminal {
	return &terminal{VT100: vt100.NewVT100(rows, cols), cols: cols, rows: rows}
}

func (t *terminal) Write(p []byte) (int, error) {
	t.raw.Write(p)
	return t.VT100.Write(p)
}

func (t *terminal) size() (int, int) { return t.cols, t.rows }

func (t *terminal) text() string {
	var lines []string
	for _, r := range t.Content {
		lines = append(lines, strings.TrimRight(string(r), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

func playTTY(t *testing.T, term *terminal, getenv func(string) string, build func(script)) string {
	t.Helper()
	play(t, func() renderer { return newTTY(term, term.size, getenv) }, build)
	return term.text()
}

func success(s script) {
	def := s.start("[internal] load build definition from Dockerfile")
	def.status("transferring dockerfile:", 132, 0, true)
	def.end("")
	from := s.start("[1/3] FROM localhost:5057/library/busybox:latest@sha256:57c734033a7912668d85265f9d1d291773bf4414dec0137789157c1855a36c10")
	from.status("sha256:80c208cf95f1b2f0ac43c3daa92e2d5be7df993e888ec9ca1d48a7feddc25395", 1_230_000, 1_230_000, true)
	sleep(1.5)
	from.end("")
	s.cached("[2/3] RUN echo one")
	run := s.start("[3/3] RUN echo two")
	run.warn("careful")
	run.log("two\n")
	sleep(10)
	run.end("")
}

func TestTTYShowsASuccessfulBuild(t *testing.T) {
	require.Equal(t, `
[+] Building 11.5s (4/4) FINISHED
 => [internal] load build definition from Dockerfile                                           0.0s
 => => transferring dockerfile: 132B                                                           0.0s
 => [1/3] FROM localhost:5057/library/busybox:latest@sha256:57c734033a7912668d85265f9d1d29177  1.5s
 => => sha256:80c208cf95f1b2f0ac43c3daa92e2d5be7df993e888ec9ca1d48a7feddc2539 1.23MB / 1.23MB  0.0s
 => CACHED [2/3] RUN echo one                                                                  0.0s
 => [3/3] RUN echo two                                                                        10.0s
 => WARN: careful                                                                              0.0s
`, playTTY(t, newTerminal(100, 40), noEnv, success))
}

func TestTTYFitsANarrowTerminal(t *testing.T) {
	require.Equal(t, `
[+] Building 11.5s (4/4) FINISHED
 => [internal] load build definition from Dockerfile   0.0s
 => => transferring dockerfile: 132B                   0.0s
 => [1/3] FROM localhost:5057/library/busybox:latest@  1.5s
 => => sha256:80c208cf95f1b2f0ac43c3d 1.23MB / 1.23MB  0.0s
 => CACHED [2/3] RUN echo one                          0.0s
 => [3/3] RUN echo two                                10.0s
 => WARN: careful                                      0.0s
`, playTTY(t, newTerminal(60, 40), noEnv, success))
	for _, cols := range []int{1, 2, 5, 9, 20} {
		for _, l := range strings.Split(playTTY(t, newTerminal(cols, 100), noEnv, success), "\n") {
			require.LessOrEqual(t, len(l), max(cols-1, 1))
		}
	}
}

func TestTTYShowsTheWholeOutputOfAFailure(t *testing.T) {
	got := playTTY(t, newTerminal(80, 40), noEnv, func(s script) {
		s.announce("never")
		st := s.start("RUN false")
		for range 15 {
			st.log("line\n")
		}
		s.start("RUN sleep").end("context canceled")
		st.end("exit code 1")
	})
	require.Contains(t, got, "[+] Building 0.0s (2/3) FINISHED\n")
	require.Contains(t, got, " => ERROR RUN false ")
	require.Contains(t, got, " => CANCELED RUN sleep ")
	require.Equal(t, 15, strings.Count(got, "0.000 line\n"))
	require.NotContains(t, got, " > RUN sleep:")
}

func TestTTYShowsTheEndOfLiveOutput(t *testing.T) {
	term := newTerminal(60, 12)
	r := newTTY(term, term.size, env("BUILDKIT_TTY_LOG_LINES", "3"))
	d := newDisplay(r, time.Hour)
	s := script{t, d}
	st := s.start("RUN make")
	for _, text := range []string{"one\n", "two\n", "three\n", "10%\r20%\r", "30%"} {
		st.log(text)
	}
	batches, _, _ := d.take()
	for _, b := range batches {
		require.NoError(t, r.add(b))
	}
	require.NoError(t, r.refresh())
	require.Contains(t, term.text(), " => RUN make  ")
	require.Contains(t, term.text(), " => => # two\n => => # three\n => => # 30%\n")
	require.NotContains(t, term.text(), "one")
}

func TestTTYFitsTheHeightWhileItRunsAndShowsAllAtTheEnd(t *testing.T) {
	term := newTerminal(60, 10)
	r := newTTY(term, term.size, noEnv)
	d := newDisplay(r, time.Hour)
	s := script{t, d}
	feed := func() {
		batches, _, _ := d.take()
		for _, b := range batches {
			require.NoError(t, r.add(b))
		}
	}
	for i := range 20 {
		s.start("done " + string(rune('a'+i))).end("")
	}
	running := s.start("RUN make")
	running.log("a\nb\nc\nd\n")
	feed()
	cols, _ := term.size()
	rows := r.fit(r.blocks(cols), 8)
	require.Len(t, rows, 8)
	require.Contains(t, rows[len(rows)-1].text, "RUN make")
	rows = r.fit(r.blocks(cols), 1)
	require.Len(t, rows, 1)
	require.Contains(t, rows[0].text, "RUN make")
	rows = r.fit(r.blocks(cols), 30)
	require.Contains(t, rows[len(rows)-1].text, "# d")
	require.NoError(t, r.finish())
	require.Equal(t, 20, strings.Count(term.raw.String(), "done "))
}

func TestTTYRedrawsInPlace(t *testing.T) {
	term := newTerminal(60, 20)
	got := playTTY(t, term, noEnv, func(s script) {
		st := s.start("RUN make")
		st.log("a\nb\nc\n")
		sleep(3)
		st.end("")
		sleep(1)
	})
	require.Equal(t, "\n[+] Building 4.0s (1/1) FINISHED\n => RUN make                                           3.0s\n", got)
}

func TestTTYColors(t *testing.T) {
	draw := func(getenv func(string) string) string {
		term := newTerminal(60, 20)
		playTTY(t, term, getenv, success)
		return term.raw.String()
	}
	require.Contains(t, draw(noEnv), "\x1b[34m => [internal]")
	require.NotContains(t, draw(env("NO_COLOR", "1")), "\x1b[34m")
	require.Contains(t, draw(env("BUILDKIT_COLORS", "run=green:nonsense:error=blurple")), "\x1b[32m => [internal]")
	require.Contains(t, draw(env("BUILDKIT_COLORS", `run="1,2,3":warning=light-red`)), "\x1b[38;2;1;2;3m => [internal]")
	require.Contains(t, draw(env("BUILDKIT_COLORS", `warning=light-red`)), "\x1b[91m => WARN")
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("a\r\nb\x1b[2A\x1b[K\x1b[31mred"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cols int) {
		s := newScreen(3, 20)
		s.write(data)
		s.lines(cols % 300)
		s.write(data)
		require.LessOrEqual(t, len(s.lines(cols%300)), 3)
	})
}

// failing is a renderer that cannot write.
type failing struct{}

func (failing) add(event.Batch) error { return nil }
func (failing) refresh() error        { return errors.New("no") }
func (failing) finish() error         { return nil }

// A log of any size is read as fast as it is shown.
func TestOutputWaitsUntilItIsShown(t *testing.T) {
	output := event.Batch{Logs: []event.Log{{Data: make([]byte, maxQueued)}}}
	synctest.Test(t, func(t *testing.T) {
		d := newDisplay(quiet{}, time.Hour)
		emitted := 0
		go func() {
			for range 10 {
				d.Emit(output)
				emitted++
			}
			d.Close()
		}()
		synctest.Wait()
		require.Equal(t, 1, emitted, "nobody shows anything yet")
		require.NoError(t, d.Run(t.Context()))
		synctest.Wait()
		require.Equal(t, 10, emitted)

		d = newDisplay(failing{}, time.Hour)
		done := make(chan error)
		go func() { done <- d.Run(t.Context()) }()
		for range 10 {
			d.Emit(output)
		}
		require.ErrorContains(t, <-done, "no")
	})
}
