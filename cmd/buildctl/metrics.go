package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
)

// cacheMetrics counts which steps of a build were cached. Calls must not overlap.
type cacheMetrics struct {
	out   io.WriteCloser
	began time.Time
	order []digest.Digest
	last  map[digest.Digest]event.Vertex
}

// newCacheMetrics prints to a file, or to a standard stream by its name.
func newCacheMetrics(target string) (*cacheMetrics, error) {
	m := &cacheMetrics{began: time.Now(), last: map[digest.Digest]event.Vertex{}}
	switch target {
	case "stdout":
		target, m.out = os.Stdout.Name(), keepOpen{os.Stdout}
	case "stderr":
		target, m.out = os.Stderr.Name(), keepOpen{os.Stderr}
	default:
		f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, err
		}
		m.out = f
	}
	log.L.Infof("writing JSON cache metrics to %s", target)
	return m, nil
}

// Emit takes the state of vertices in.
func (m *cacheMetrics) Emit(b event.Batch) {
	for _, v := range b.Vertices {
		known, ok := m.last[v.Digest]
		if !ok {
			m.order = append(m.order, v.Digest)
		}
		if known.Completed != nil && v.Completed == nil {
			continue
		}
		m.last[v.Digest] = v
	}
}

var fromStep = regexp.MustCompile(`^\[.*\] FROM`)

// isUserStep tells steps of the user from those that serve them.
func isUserStep(name string) bool {
	for _, prefix := range []string{"[internal]", "[auth]", "importing cache", "exporting "} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// print prints the names of the steps that were not cached, and the counts.
func (m *cacheMetrics) print() error {
	var total, completed, userTotal, userCached, userCompleted, from, miss int
	for _, dgst := range m.order {
		v := m.last[dgst]
		total++
		if v.Completed != nil {
			completed++
		}
		if !isUserStep(v.Name) {
			continue
		}
		userTotal++
		isFrom := fromStep.MatchString(v.Name)
		if isFrom {
			from++
		}
		if v.Completed == nil {
			continue
		}
		userCompleted++
		switch {
		case v.Cached:
			userCached++
		case !isFrom:
			miss++
			if _, err := fmt.Fprintf(m.out, "cache miss: %s\n", v.Name); err != nil {
				return errors.Join(err, m.out.Close())
			}
		}
	}
	_, err := fmt.Fprintf(m.out,
		`{"total":%d,"completed":%d,"user_total":%d,"user_cached":%d,"user_completed":%d,"user_cacheable":%d,"from":%d,"miss":%d,"client_duration_ms": %d}`+"\n",
		total, completed, userTotal, userCached, userCompleted, userTotal-from, from, miss, time.Since(m.began).Milliseconds())
	return errors.Join(err, m.out.Close())
}
