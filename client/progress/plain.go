package progress

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/tonistiigi/units"

	"github.com/openbuildkit/buildkit/api/event"
)

const (
	// patience is how long a running step may keep others waiting that have something to say.
	patience = 5 * time.Second
	// statusInterval and statusDelta say when a status is worth another line.
	statusInterval = 5 * time.Second
	statusDelta    = 0.05
	// shortDuration is what is not worth mentioning.
	shortDuration = 10 * time.Millisecond
	// maxName is where names are cut, if they are.
	maxName = 72
)

// plain prints lines. Lines of one step stand together in a block; a block ends when its step
// does, or when others have waited for too long.
type plain struct {
	w        *bufio.Writer
	trace    *trace
	truncate bool
	numbers  map[*node]int
	// current is the step of the open block; nil if the last one is complete.
	current *node
	opened  time.Time
}

func newPlain(w io.Writer, getenv func(string) string) *plain {
	noTrunc, err := strconv.ParseBool(getenv(envNoTrunc))
	return &plain{
		w:        bufio.NewWriter(w),
		trace:    newTrace(),
		truncate: err == nil && !noTrunc,
		numbers:  map[*node]int{},
	}
}

func (p *plain) add(b event.Batch) error {
	p.trace.add(b)
	return nil
}

func (p *plain) refresh() error {
	p.printChanged()
	return p.w.Flush()
}

func (p *plain) finish() error {
	p.printChanged()
	for _, n := range p.waiting() {
		p.print(n)
	}
	printFailures(p.w, p.trace)
	return p.w.Flush()
}

// waiting returns the steps that have something to say, those that have waited longest first.
func (p *plain) waiting() []*node {
	var out []*node
	for _, n := range p.trace.nodes {
		if n.changed && n.started() && !n.hidden() {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b *node) int { return a.waiting.Compare(b.waiting) })
	return out
}

func (p *plain) printChanged() {
	if p.current != nil && p.current.changed {
		p.print(p.current)
	}
	var done, running []*node
	for _, n := range p.waiting() {
		if n.done() {
			done = append(done, n)
		} else {
			running = append(running, n)
		}
	}
	slices.SortStableFunc(done, func(a, b *node) int { return a.ended().Compare(b.ended()) })
	// What is complete is printed at once: its block takes nobody's turn.
	for _, n := range done {
		p.print(n)
	}
	if len(running) == 0 {
		return
	}
	now := time.Now()
	if p.current == nil || now.Sub(running[0].waiting) >= patience && now.Sub(p.opened) >= patience {
		p.print(running[0])
	}
}

// print prints what n has to say, in a block of its own.
func (p *plain) print(n *node) {
	num := p.open(n)
	for _, s := range n.statuses {
		p.printStatus(num, s)
	}
	for _, w := range n.warnings {
		p.linef(num, "WARN: %s", w.Short)
	}
	n.warnings = nil
	done := n.done()
	for _, l := range n.lines.take(done) {
		p.linef(num, "%s %s", stamp(l.at), l.text)
	}
	n.changed = false
	if done {
		p.linef(num, "%s", p.outcome(n))
		p.current = nil
	}
}

// open prints the head of n's block unless that is open, and returns n's number.
func (p *plain) open(n *node) int {
	if p.current == n {
		return p.numbers[n]
	}
	if p.current != nil {
		p.linef(p.numbers[p.current], "...")
	}
	if len(p.numbers) > 0 {
		fmt.Fprintln(p.w)
	}
	num, ok := p.numbers[n]
	if !ok {
		num = len(p.numbers) + 1
		p.numbers[n] = num
	}
	p.linef(num, "%s", p.name(n))
	p.current, p.opened = n, time.Now()
	return num
}

func (p *plain) linef(num int, format string, args ...any) {
	fmt.Fprintf(p.w, "#%d %s\n", num, fmt.Sprintf(format, args...))
}

func (p *plain) name(n *node) string {
	if p.truncate && len(n.name) > maxName+3 {
		return n.name[:maxName] + "..."
	}
	return n.name
}

func (p *plain) outcome(n *node) string {
	switch v := n.failed(); {
	case v != nil && v.canceled():
		return "CANCELED"
	case v != nil:
		return "ERROR: " + v.err
	case n.cached():
		return "CACHED"
	}
	return fmt.Sprintf("DONE %.1fs", n.elapsed(p.trace.daemonNow()).Seconds())
}

// printStatus prints a status that is new, complete, or has come on.
func (p *plain) printStatus(num int, s *stepStatus) {
	if s.printedDone && s.Completed != nil {
		return
	}
	now := time.Now()
	due := !s.printed || s.Completed != nil
	if !due && s.Current != s.printedSize {
		moved := float64(s.Current - s.printedSize)
		due = s.Total > 0 && moved/float64(s.Total) >= statusDelta || now.Sub(s.printedAt) >= statusInterval
	}
	if !due {
		return
	}
	s.printed, s.printedAt, s.printedSize, s.printedDone = true, now, s.Current, s.Completed != nil
	text := s.ID + sizes(s.Status)
	if d := statusDuration(s.Status, s.Timestamp); d >= shortDuration {
		text += fmt.Sprintf(" %.1fs", d.Seconds())
	}
	if s.Completed != nil {
		text += " done"
	}
	p.linef(num, "%s", text)
}

// sizes formats how far a status is, with a space before it; empty if there is nothing to say.
func sizes(s event.Status) string {
	switch {
	case s.Total != 0:
		return fmt.Sprintf(" %.2f / %.2f", units.Bytes(s.Current), units.Bytes(s.Total))
	case s.Current != 0:
		return fmt.Sprintf(" %.2f", units.Bytes(s.Current))
	}
	return ""
}

func statusDuration(s event.Status, now time.Time) time.Duration {
	if s.Started == nil {
		return 0
	}
	if s.Completed != nil {
		now = *s.Completed
	}
	return max(0, now.Sub(*s.Started))
}

// printFailures prints the output of the vertices that failed once more.
func printFailures(w io.Writer, t *trace) {
	for _, v := range t.failures() {
		fmt.Fprintf(w, "------\n > %s:\n", v.name)
		for _, l := range v.tail.all() {
			fmt.Fprintf(w, "%s %s\n", stamp(l.at), l.text)
		}
		fmt.Fprintln(w, "------")
	}
}
