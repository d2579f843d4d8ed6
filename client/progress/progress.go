// Package progress shows what a build is doing.
//
// A Display receives event.Batches, from any goroutine, and draws them on a terminal, prints them
// as lines, or writes them as JSON. What it is told is kept in a trace: nodes, each a vertex or a
// group of vertices that are shown as one, with their statuses, warnings and output. The display
// never decides the outcome of a build and does not print its error; it does print the last
// output of vertices that failed.
//
// Clients make a Display, run it beside the build, and close it once the build's last event has
// been given to it.
package progress

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/console"

	"github.com/openbuildkit/buildkit/api/event"
)

// Mode is a way of showing progress.
type Mode string

// Modes. Auto is TTY on a terminal and Plain elsewhere.
const (
	Auto    Mode = "auto"
	Plain   Mode = "plain"
	TTY     Mode = "tty"
	Quiet   Mode = "quiet"
	RawJSON Mode = "rawjson"
)

// ParseMode returns the mode of a name; the empty name is Auto.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return Auto, nil
	case Auto, Plain, TTY, Quiet, RawJSON:
		return m, nil
	}
	return "", fmt.Errorf("invalid progress mode %s", name)
}

// Environment variables that change a display.
const (
	envRate     = "TTY_DISPLAY_RATE"       // milliseconds between frames
	envNoTrunc  = "PROGRESS_NO_TRUNC"      // false cuts names in plain mode
	envLogLines = "BUILDKIT_TTY_LOG_LINES" // lines of output under a vertex
	envNoColor  = "NO_COLOR"
	envColors   = "BUILDKIT_COLORS"
)

const defaultRate = 150 * time.Millisecond

// renderer shows a trace. Its methods are called from one goroutine.
type renderer interface {
	// add takes records in.
	add(event.Batch) error
	// refresh shows what has changed.
	refresh() error
	// finish shows the final state.
	finish() error
}

// Display is an event.Sink that shows what it receives.
type Display struct {
	renderer renderer
	rate     time.Duration

	mu     sync.Mutex
	queue  []event.Batch
	queued int // bytes of output in queue
	closed bool
	// ended is set when Run has returned: nobody takes from queue any more.
	ended   bool
	arrived chan struct{}
	// room is signalled when queue has been taken.
	room *sync.Cond
}

// maxQueued is how many bytes of output wait to be shown. Who brings more waits: a log of gigabytes is read
// as fast as it is printed.
const maxQueued = 4 << 20

// New returns a display in a mode, on out. Getenv reads the environment, usually os.Getenv. It is
// an error to ask for TTY where out is no terminal.
func New(mode Mode, out *os.File, getenv func(string) string) (*Display, error) {
	rate := defaultRate
	if ms, err := strconv.Atoi(getenv(envRate)); err == nil && ms > 0 {
		rate = time.Duration(ms) * time.Millisecond
	}
	switch mode {
	case Quiet:
		return newDisplay(quiet{}, 0), nil
	case RawJSON:
		return newDisplay(rawJSON{NewJSONWriter(out)}, 0), nil
	case Plain:
		return newDisplay(newPlain(out, getenv), rate), nil
	case Auto, TTY:
		term, err := console.ConsoleFromFile(out)
		if err == nil {
			return newDisplay(newTTY(out, terminalSize(term), getenv), rate), nil
		}
		if mode == Auto {
			return newDisplay(newPlain(out, getenv), rate), nil
		}
		return nil, fmt.Errorf("failed to get console: %w", err)
	}
	return nil, fmt.Errorf("invalid progress mode %s", mode)
}

// newDisplay returns a display that refreshes at a rate, or at once if that is 0.
func newDisplay(r renderer, rate time.Duration) *Display {
	d := &Display{renderer: r, rate: rate, arrived: make(chan struct{}, 1)}
	d.room = sync.NewCond(&d.mu)
	return d
}

// Emit queues records. It waits while much output is queued. Records that come after Close, or when Run has
// returned, are dropped.
func (d *Display) Emit(b event.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.queued >= maxQueued && !d.closed && !d.ended {
		d.room.Wait()
	}
	if d.closed || d.ended {
		return
	}
	d.queue = append(d.queue, b)
	for _, l := range b.Logs {
		d.queued += len(l.Data)
	}
	d.wake()
}

func (d *Display) wake() {
	select {
	case d.arrived <- struct{}{}:
	default:
	}
}

// Close tells that no more records come. It may be called more than once.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.room.Broadcast()
	d.wake()
}

// take returns what is queued; full tells that others wait for that to be shown.
func (d *Display) take() (batches []event.Batch, full, closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	batches, full = d.queue, d.queued >= maxQueued
	d.queue, d.queued = nil, 0
	d.room.Broadcast()
	return batches, full, d.closed
}

func (d *Display) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.room.Broadcast()
}

// Run shows records until Close is called or ctx ends, then the final state. The error is that
// of writing.
func (d *Display) Run(ctx context.Context) error {
	defer d.end()
	var tick <-chan time.Time
	if d.rate > 0 {
		t := time.NewTicker(d.rate)
		defer t.Stop()
		tick = t.C
	}
	for {
		refresh := d.rate == 0
		select {
		case <-d.arrived:
		case <-tick:
			refresh = true
		case <-ctx.Done():
			return d.renderer.finish()
		}
		batches, full, closed := d.take()
		for _, b := range batches {
			if err := d.renderer.add(b); err != nil {
				return err
			}
		}
		if closed {
			return d.renderer.finish()
		}
		if refresh || full {
			if err := d.renderer.refresh(); err != nil {
				return err
			}
		}
	}
}

type quiet struct{}

func (quiet) add(event.Batch) error { return nil }
func (quiet) refresh() error        { return nil }
func (quiet) finish() error         { return nil }
