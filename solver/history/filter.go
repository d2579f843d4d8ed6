package history

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/status"
)

// Fields of filters.
const (
	fieldRef        = "ref"
	fieldStatus     = "status"
	fieldRepository = "repository"
	fieldStarted    = "startedAt"
	fieldCompleted  = "completedAt"
	fieldDuration   = "duration"
)

// Values of the field status.
const (
	statusRunning   = "running"
	statusCompleted = "completed"
	statusError     = "error"
	statusCanceled  = "canceled"
)

// comparison is a part of a filter that compares times or durations; the others are containerd's.
var comparison = regexp.MustCompile(`^\s*(` + fieldStarted + `|` + fieldCompleted + `|` + fieldDuration + `)\s*(>=|<=|>|<)(.*)$`)

type matcher = func(*Record) bool

// parseFilters returns a function that tells whether a record matches any of the filters; without
// filters all do. The parts of a filter, separated by commas, must all match.
func parseFilters(all []string, now time.Time) (matcher, error) {
	var alternatives []matcher
	for _, text := range all {
		m, err := parseFilter(text, now)
		if err != nil {
			return nil, status.New(codes.InvalidArgument, fmt.Sprintf("failed to parse history filter %q: %v", text, err))
		}
		alternatives = append(alternatives, m)
	}
	return func(rec *Record) bool {
		for _, m := range alternatives {
			if m(rec) {
				return true
			}
		}
		return len(alternatives) == 0
	}, nil
}

func parseFilter(text string, now time.Time) (matcher, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.LazyQuotes = true
	parts, err := r.Read()
	if err != nil {
		return nil, err
	}
	if rest, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, cmp.Or(err, fmt.Errorf("a line follows: %q", rest))
	}
	var every []matcher
	for _, part := range parts {
		var m matcher
		if c := comparison.FindStringSubmatch(part); c != nil {
			m, err = parseComparison(c[1], c[2], strings.TrimSpace(c[3]), now)
		} else {
			m, err = parseField(part)
		}
		if err != nil {
			return nil, err
		}
		every = append(every, m)
	}
	return func(rec *Record) bool {
		for _, m := range every {
			if !m(rec) {
				return false
			}
		}
		return true
	}, nil
}

func parseField(text string) (matcher, error) {
	f, err := filters.Parse(text)
	if err != nil {
		return nil, err
	}
	return func(rec *Record) bool {
		return f.Match(filters.AdapterFunc(func(path []string) (string, bool) { return field(rec, strings.Join(path, ".")) }))
	}, nil
}

func field(rec *Record, name string) (string, bool) {
	switch name {
	case fieldRef:
		return rec.GetRef(), true
	case fieldStatus:
		return statusOf(rec), true
	case fieldRepository:
		return repositoryOf(rec)
	}
	return "", false
}

func statusOf(rec *Record) string {
	switch {
	case rec.GetError() != nil && (strings.Contains(rec.GetError().GetMessage(), "context canceled") ||
		codes.Code(rec.GetError().GetCode()) == codes.Canceled):
		return statusCanceled
	case rec.GetError() != nil:
		return statusError
	case rec.GetCompletedAt() == nil:
		return statusRunning
	}
	return statusCompleted
}

// repositoryOf returns where the sources of a build come from, if that is a repository.
func repositoryOf(rec *Record) (string, bool) {
	attrs := rec.GetFrontendAttrs()
	if source := attrs["vcs:source"]; source != "" {
		return source, true
	}
	remote, _, ref := strings.Cut(attrs["context"], "#")
	u, err := giturl.Parse(remote)
	if err != nil || !ref && u.Scheme != giturl.SSH && u.Scheme != giturl.Git && !strings.HasSuffix(u.Path, ".git") {
		return "", false
	}
	return u.Remote(), true
}

func parseComparison(name, op, value string, now time.Time) (matcher, error) {
	if name == fieldDuration {
		want, err := time.ParseDuration(value)
		if err != nil {
			return nil, err
		}
		return func(rec *Record) bool {
			return rec.GetCompletedAt() != nil &&
				compare(op, int64(rec.GetCompletedAt().AsTime().Sub(rec.GetCreatedAt().AsTime())), int64(want))
		}, nil
	}
	want, err := time.Parse(time.RFC3339, value)
	if err != nil {
		ago, derr := time.ParseDuration(value)
		if derr != nil {
			return nil, fmt.Errorf("%q is neither a time nor a duration", value)
		}
		want = now.Add(-ago)
	}
	get := (*Record).GetCreatedAt
	if name == fieldCompleted {
		get = (*Record).GetCompletedAt
	}
	return func(rec *Record) bool {
		at := get(rec)
		return at != nil && compare(op, at.AsTime().UnixNano(), want.UnixNano())
	}, nil
}

func compare(op string, a, b int64) bool {
	switch op {
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "<":
		return a < b
	default:
		return a <= b
	}
}
