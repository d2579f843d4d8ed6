package progress

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/console"
	"github.com/morikuni/aec"

	"github.com/openbuildkit/buildkit/api/event"
)

const (
	defaultLogLines = 6
	// defaultCols and defaultRows are taken if the terminal does not tell.
	defaultCols = 80
	defaultRows = 24
	// otherRows are the rows of a screen that steps cannot have: the head and the cursor's.
	otherRows = 2
)

// size returns the columns and rows of a terminal.
type size func() (cols, rows int)

func terminalSize(c console.Console) size {
	return func() (int, int) {
		s, err := c.Size()
		if err != nil || s.Width == 0 || s.Height == 0 {
			return defaultCols, defaultRows
		}
		return int(s.Width), int(s.Height)
	}
}

// tty redraws all steps in place.
type tty struct {
	w        io.Writer
	size     size
	trace    *trace
	colors   colors
	logLines int
	live     map[*node]*screen
	// drawn holds the widths of the lines on the terminal.
	drawn []int
	begun bool
}

func newTTY(w io.Writer, size size, getenv func(string) string) *tty {
	t := &tty{
		w:        w,
		size:     size,
		trace:    newTrace(),
		colors:   parseColors(getenv),
		logLines: defaultLogLines,
		live:     map[*node]*screen{},
	}
	if n, err := strconv.Atoi(getenv(envLogLines)); err == nil && n > 0 {
		t.logLines = n
	}
	t.trace.keepOutput = true
	t.trace.onNode = func(n *node) {
		n.lines.discard = true
		n.output = func(data []byte) { t.screen(n).write(data) }
	}
	return t
}

func (t *tty) screen(n *node) *screen {
	s, ok := t.live[n]
	if !ok {
		cols, _ := t.size()
		s = newScreen(t.logLines, cols-len(logPrefix)-1)
		t.live[n] = s
	}
	return s
}

func (t *tty) add(b event.Batch) error {
	t.trace.add(b)
	return nil
}

func (t *tty) refresh() error {
	if t.trace.announced == 0 {
		return nil
	}
	cols, rows := t.size()
	return t.draw(cols, t.fit(t.blocks(cols), max(1, rows-otherRows)), false)
}

func (t *tty) finish() error {
	if t.trace.announced > 0 {
		cols, _ := t.size()
		var rows []row
		for _, b := range t.blocks(cols) {
			rows = append(rows, b.rows...)
		}
		if err := t.draw(cols, rows, true); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	printFailures(&out, t.trace)
	_, err := t.w.Write(out.Bytes())
	return err
}

// row is a line of the screen.
type row struct {
	text  string
	color aec.ANSI
}

// block is what is shown of a step: rows, the first of which is its head, and live output.
type block struct {
	rows []row
	logs []row
	done bool
}

const (
	headPrefix   = " => "
	statusPrefix = " => => "
	logPrefix    = " => => # "
)

func (t *tty) blocks(cols int) []block {
	var out []block
	now := t.trace.daemonNow()
	for _, n := range t.trace.nodes {
		if n.hidden() {
			continue
		}
		b := block{done: n.done()}
		label, color := t.state(n)
		b.rows = append(b.rows, row{layout(cols, headPrefix, label+n.name, "", n.elapsed(now)), color})
		for _, s := range n.statuses {
			b.rows = append(b.rows, row{
				layout(cols, statusPrefix, s.ID, sizes(s.Status), statusDuration(s.Status, now)),
				colorIf(b.done || s.Completed != nil, t.colors.run),
			})
		}
		for _, w := range n.warnings {
			b.rows = append(b.rows, row{layout(cols, headPrefix, "WARN: "+string(w.Short), "", 0), t.colors.warning})
		}
		if s, ok := t.live[n]; ok && !b.done {
			for _, text := range s.lines(cols - len(logPrefix) - 1) {
				b.logs = append(b.logs, row{logPrefix + text, t.colors.log})
			}
		}
		if b.done {
			delete(t.live, n)
		}
		out = append(out, b)
	}
	return out
}

// state returns what stands before the name of a step, and its color.
func (t *tty) state(n *node) (string, aec.ANSI) {
	if !n.done() {
		return "", nil
	}
	switch v := n.failed(); {
	case v != nil && v.canceled():
		return "CANCELED ", t.colors.cancel
	case v != nil:
		return "ERROR ", t.colors.fail
	case n.cached():
		return "CACHED ", t.colors.run
	}
	return "", t.colors.run
}

func colorIf(cond bool, c aec.ANSI) aec.ANSI {
	if cond {
		return c
	}
	return nil
}

// fit returns at most limit rows. Live output is shortened first, then the oldest steps that are
// done are left out, then the top is cut.
func (t *tty) fit(blocks []block, limit int) []row {
	used, live := 0, 0
	for _, b := range blocks {
		used += len(b.rows)
		if len(b.logs) > 0 {
			live++
		}
	}
	for i := range blocks {
		b := &blocks[i]
		if len(b.logs) == 0 {
			continue
		}
		share := max(0, (limit-used)/live)
		if len(b.logs) > share {
			b.logs = b.logs[len(b.logs)-share:]
		}
		used += len(b.logs)
		live--
	}
	var out []row
	for _, b := range blocks {
		if used > limit && b.done {
			used -= len(b.rows)
			continue
		}
		out = append(append(out, b.rows...), b.logs...)
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out
}

// draw replaces what is on the terminal.
func (t *tty) draw(cols int, rows []row, finished bool) error {
	var out bytes.Buffer
	out.WriteString(aec.Hide.String())
	if !t.begun {
		t.begun = true
		out.WriteByte('\n')
	}
	if up := t.height(cols); up > 0 {
		out.WriteString(aec.Up(uint(up)).String() + "\r")
	}
	lines := append([]row{{text: cut(t.head(finished), cols-1)}}, rows...)
	eraseRest := aec.EraseLine(aec.EraseModes.Tail).String()
	widths := make([]int, len(lines))
	for i, l := range lines {
		widths[i] = utf8.RuneCountInString(l.text)
		out.WriteString(paint(l.color, l.text) + eraseRest + "\n")
	}
	t.clearBelow(&out, cols, len(lines), eraseRest)
	t.drawn = widths
	out.WriteString(aec.Show.String())
	_, err := t.w.Write(out.Bytes())
	return err
}

// height returns how many rows of a terminal of cols columns the last frame takes. If it was
// made narrower since, lines have been wrapped.
func (t *tty) height(cols int) int {
	n := 0
	for _, w := range t.drawn {
		n += max(1, (w+cols-1)/max(1, cols))
	}
	return n
}

// clearBelow clears what a higher frame has left behind, and moves back.
func (t *tty) clearBelow(out *bytes.Buffer, cols, lines int, eraseRest string) {
	left := t.height(cols) - lines
	if left <= 0 {
		return
	}
	for range left {
		out.WriteString(eraseRest + "\n")
	}
	out.WriteString(aec.Up(uint(left)).String() + "\r")
}

func (t *tty) head(finished bool) string {
	done := 0
	for _, n := range t.trace.nodes {
		if n.done() {
			done++
		}
	}
	text := fmt.Sprintf("[+] Building %.1fs (%d/%d)", time.Since(t.trace.began).Seconds(), done, t.trace.announced)
	if finished {
		text += " FINISHED"
	}
	return text
}

// layout lays a row out: name is cut so that suffix and duration fit. The last column of the
// terminal stays free, lest it wraps.
func layout(cols int, prefix, name, suffix string, d time.Duration) string {
	timer := fmt.Sprintf(" %3.1fs", d.Seconds())
	room := max(0, cols-len(timer)-2)
	name = cut(printable(name), room-len(prefix)-utf8.RuneCountInString(suffix))
	text := cut(prefix+name+suffix, room)
	return cut(text+strings.Repeat(" ", room-utf8.RuneCountInString(text))+" "+timer, cols-1)
}

// cut returns the first n characters of s.
func cut(s string, n int) string {
	for i := range s {
		if n <= 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// printable replaces what would move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
