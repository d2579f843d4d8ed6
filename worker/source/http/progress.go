//go:build linux

package http

import (
	"time"

	"github.com/openbuildkit/buildkit/api/event"
)

const (
	// progressAfter is how long a transfer takes before it is shown; progressEvery how often it
	// is shown then.
	progressAfter = time.Second
	progressEvery = 150 * time.Millisecond
)

// progress shows a transfer that takes long: a writer that counts.
type progress struct {
	scope event.Scope
	st    event.Status
	// shown is when it was shown last, and before that when it began.
	shown time.Time
}

// newProgress begins a transfer of total bytes; a negative number stands for nobody knows.
func newProgress(scope event.Scope, name string, total int64) *progress {
	start := time.Now()
	return &progress{scope, event.Status{ID: "downloading " + name, Total: max(total, 0), Started: &start}, start}
}

// Write counts.
func (p *progress) Write(b []byte) (int, error) {
	p.st.Current += int64(len(b))
	now := time.Now()
	if now.Sub(*p.st.Started) >= progressAfter && now.Sub(p.shown) >= progressEvery {
		p.show(now)
	}
	return len(b), nil
}

func (p *progress) show(now time.Time) {
	p.shown, p.st.Timestamp = now, now
	p.scope.Status(p.st)
}

// end shows the end of what was shown.
func (p *progress) end() {
	if p.shown.Equal(*p.st.Started) {
		return
	}
	now := time.Now()
	p.st.Completed = &now
	p.show(now)
}
