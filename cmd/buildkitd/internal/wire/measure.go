package wire

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
	"github.com/openbuildkit/buildkit/solver"
)

// newDurations returns the measurement of builds. Scrapers that know native histograms get buckets
// that are a tenth apart.
func newDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                        "buildkit_build_duration_seconds",
		Help:                        "How long builds took, by how they ended: completed, error or canceled.",
		Buckets:                     []float64{0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		NativeHistogramBucketFactor: 1.1,
	}, []string{"status"})
}

// measuring is a solver whose builds are measured, but for those that clients make only to learn what
// the daemon can do.
type measuring struct {
	control.Solver
	durations *prometheus.HistogramVec
}

// Solve implements control.Solver.
func (m measuring) Solve(ctx context.Context, req solver.Request) (*solver.Response, error) {
	start := time.Now()
	resp, err := m.Solver.Solve(ctx, req)
	if !req.Internal {
		m.durations.WithLabelValues(ending(err)).Observe(time.Since(start).Seconds())
	}
	return resp, err
}

// ending names how a build ended, as filters of the history do.
func ending(err error) string {
	switch {
	case err == nil:
		return "completed"
	case status.Code(err) == codes.Canceled:
		return "canceled"
	default:
		return "error"
	}
}
