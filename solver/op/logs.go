package op

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/openbuildkit/buildkit/api/event"
)

// LogLimits bound the output of one step that is shown live; -1 is unlimited.
type LogLimits struct {
	// Size is in bytes.
	Size int64
	// Speed is in bytes per second, averaged over the life of the step.
	Speed int64
}

// DefaultLogLimits are 2 MiB, at 200 KiB a second.
var DefaultLogLimits = LogLimits{Size: 2 << 20, Speed: 200 << 10}

// LogLimitsFromEnv reads the environment variables that change the default.
func LogLimitsFromEnv(getenv func(string) string) LogLimits {
	l := DefaultLogLimits
	if n, err := strconv.ParseInt(getenv("BUILDKIT_STEP_LOG_MAX_SIZE"), 10, 64); err == nil {
		l.Size = n
	}
	if n, err := strconv.ParseInt(getenv("BUILDKIT_STEP_LOG_MAX_SPEED"), 10, 64); err == nil {
		l.Speed = n
	}
	return l
}

// tailSize is how much of clipped output is shown at the end of a step that failed.
const tailSize = 256 << 10

// logs is the output of one step on its way to the record of the build, and, within limits, to
// those who watch.
type logs struct {
	scope  event.Scope
	limits LogLimits
	start  time.Time

	// foreign is set where the output is that of programs for another processor.
	foreign bool

	mu      sync.Mutex
	refused refusal
	// sent counts what is shown, seen what there was.
	sent, seen int64
	clipped    bool
	// tail is a ring when it is full, in which oldest is the first byte.
	tail   []byte
	oldest int
	stream int
}

func newLogs(scope event.Scope, limits LogLimits) *logs {
	return &logs{scope: scope, limits: limits, start: time.Now()}
}

func (l *logs) writer(stream int) io.Writer { return logWriter{l, stream} }

type logWriter struct {
	l      *logs
	stream int
}

// Write never fails. It waits for no reader, but for the disk if that is slower than the process.
func (w logWriter) Write(p []byte) (int, error) {
	w.l.write(w.stream, p)
	return len(p), nil
}

func (l *logs) write(stream int, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.foreign {
		l.refused.look(p)
	}
	l.seen += int64(len(p))
	if l.clipped && !l.resume() {
		l.hide(stream, p)
		return
	}
	room, why := l.room(int64(len(p)))
	if room > 0 {
		l.scope.Log(stream, p[:room])
		l.sent += room
	}
	if why != "" {
		l.clipped = true
		l.scope.LogFor(event.Watchers, stream, fmt.Appendf(nil, "\n[output clipped, log limit %s reached]\n", why))
		l.hide(stream, p[room:])
	}
}

// resume shows output again after there was too much at once: when all that there was, shown or not, is no
// more than the step might have said a second ago, so that it does not come and go with every line. What was
// clipped until then is in the record only.
func (l *logs) resume() bool {
	if l.limits.Size >= 0 && l.sent >= l.limits.Size || l.limits.Speed < 0 || l.seen > l.allowed()-l.limits.Speed {
		return false
	}
	l.clipped, l.tail, l.oldest = false, nil, 0
	return true
}

// hide takes output that is not shown live. It is all in the record of the build.
func (l *logs) hide(stream int, p []byte) {
	if len(p) > 0 {
		l.scope.LogFor(event.Record, stream, p)
		l.keep(stream, p)
	}
}

// room returns how much of n bytes, which are counted as seen, may be sent, and, if that is not all, which
// limit says so.
func (l *logs) room(n int64) (int64, string) {
	room, why := n, ""
	if left := l.limits.Size - l.sent; l.limits.Size >= 0 && left < room {
		room, why = left, sizeText(l.limits.Size)
	}
	if l.limits.Speed >= 0 {
		if left := l.allowed() - (l.seen - n); left < room {
			room, why = left, sizeText(l.limits.Speed)+"/s"
		}
	}
	return max(0, room), why
}

// allowed is what the limit of speed lets a step say until now. The first second counts whole, so that short
// bursts pass.
func (l *logs) allowed() int64 {
	return int64(max(1, time.Since(l.start).Seconds()) * float64(l.limits.Speed))
}

func sizeText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", n>>10)
	default:
		return fmt.Sprintf("%dB", n)
	}
}

// keep remembers the end of what is not shown.
func (l *logs) keep(stream int, p []byte) {
	l.stream = stream
	if room := tailSize - len(l.tail); room > 0 {
		n := min(room, len(p))
		l.tail = append(l.tail, p[:n]...)
		p = p[n:]
	}
	p = p[max(0, len(p)-tailSize):]
	for len(p) > 0 {
		n := copy(l.tail[l.oldest:], p)
		p = p[n:]
		l.oldest = (l.oldest + n) % tailSize
	}
}

// notExecutable tells whether the output of a foreign process says that a program is for another
// processor. OCI runtimes and shells end with codes of their own choice, but all of them print the
// system's message.
func (l *logs) notExecutable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused.seen
}

// noExec is the text of ENOEXEC without its first letter, which is large or small.
var noExec = []byte("xec format error")

// refusal looks for noExec in a stream.
type refusal struct {
	seen bool
	last []byte // the end of what was looked at, shorter than noExec
}

func (r *refusal) look(p []byte) {
	if r.seen {
		return
	}
	all := append(r.last, p...)
	r.seen = bytes.Contains(all, noExec)
	r.last = append(r.last[:0], all[max(0, len(all)-len(noExec)+1):]...)
}

// close ends the output. What was clipped last is shown if the step failed.
func (l *logs) close(failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed && len(l.tail) > 0 {
		l.scope.LogFor(event.Watchers, l.stream, slices.Concat(l.tail[l.oldest:], l.tail[:l.oldest]))
	}
	l.tail = nil
}
