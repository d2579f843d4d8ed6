package wire

import (
	"expvar"
	"net"
	"net/http"
	"net/http/pprof"
	runtimedebug "runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openbuildkit/buildkit/solver/key"
)

// listenDebug opens the address of the debug server: tcp, unless it says unix://.
func listenDebug(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		return listenUnix(path, nil, nil)
	}
	return net.Listen("tcp", strings.TrimPrefix(addr, "tcp://"))
}

// debugParts are what the debug server shows of a daemon.
type debugParts struct {
	busy      func() int
	durations prometheus.Collector
	keys      *key.Store
}

// newDebugServer serves profiles, variables and metrics of the process, what it is at and what it
// knows, and collects its garbage.
func newDebugServer(parts debugParts) *http.Server {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "buildkit_builds_running",
			Help: "Builds that are running.",
		}, func() float64 { return float64(parts.busy()) }),
		parts.durations,
	)
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/gc", func(http.ResponseWriter, *http.Request) { runtimedebug.FreeOSMemory() })
	mux.HandleFunc("/debug/requests", showRequests)
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	(&keysHandler{parts.keys}).register(mux)
	(&flight{period: defaultPeriod}).register(mux)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
}
