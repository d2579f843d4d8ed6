//go:build linux

package git

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/api/giturl"
)

const (
	// maxLine is where a line is cut, in bytes.
	maxLine = 16 << 10
	// progressEvery is how often what git counts is shown. What ends sooner counts in silence.
	progressEvery = 5 * time.Second
)

// counting is a line by which git tells how far it is.
var counting = regexp.MustCompile(`^(remote: )?[A-Z][a-z]+( [a-z]+)*: +[0-9]+(%|,| |$)`)

// lineWriter passes whole lines on, made presentable. Of lines that tell the progress, and of those
// that the next one is drawn over, it passes on one from time to time.
type lineWriter struct {
	w io.Writer
	// dir is the folder that git works in.
	dir  string
	rest []byte
	// due is when progress is shown again.
	due time.Time
}

func newLineWriter(w io.Writer, dir string) *lineWriter {
	return &lineWriter{w: w, dir: dir, due: time.Now().Add(progressEvery)}
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexAny(l.rest, "\r\n")
		if i < 0 {
			if len(l.rest) > maxLine {
				l.flush()
			}
			return len(p), nil
		}
		l.line(l.rest[:i], l.rest[i] == '\r')
		l.rest = l.rest[i+1:]
	}
}

// line passes a line on, which may be one that another is drawn over.
func (l *lineWriter) line(b []byte, passing bool) {
	text := strings.TrimRight(string(b), " ")
	if passing && text == "" {
		return
	}
	if passing || counting.MatchString(text) {
		now := time.Now()
		if now.Before(l.due) {
			return
		}
		l.due = now.Add(progressEvery)
	}
	// Where a ref is put is nothing to users.
	text, _, _ = strings.Cut(text, " -> refs/buildkit")
	_, _ = io.WriteString(l.w, strings.TrimRight(presentable(text, l.dir), " ")+"\n")
}

func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		l.line(l.rest, false)
		l.rest = nil
	}
}

// presentable returns what git said without credentials and without the folder that it worked in.
func presentable(text, dir string) string {
	if dir != "" {
		text = strings.ReplaceAll(text, dir+"/", "")
	}
	return giturl.Redact(text)
}
