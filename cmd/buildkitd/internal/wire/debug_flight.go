package wire

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/trace"
	"sync"
	"time"
)

const (
	// defaultPeriod is how far back the flight recorder goes, maxPeriod how far it may be told to.
	defaultPeriod = 10 * time.Second
	maxPeriod     = 10 * time.Minute
	// flightBytes bounds what it keeps: it drops what is older then, whatever the period.
	flightBytes = 32 << 20
)

// flight lets the Go runtime keep a trace of the last moments, to be read when something has happened.
type flight struct {
	mu     sync.Mutex
	period time.Duration
	// rec is nil while nothing is recorded.
	rec *trace.FlightRecorder
}

func (f *flight) register(mux *http.ServeMux) {
	const path = "/debug/flight/trace"
	mux.HandleFunc("GET "+path, f.read)
	for name, fn := range map[string]func(*http.Request) error{"start": f.start, "stop": f.stop, "set_period": f.setPeriod} {
		mux.HandleFunc("POST "+path+"/"+name, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if err := fn(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
}

// read writes the trace as go tool trace reads it.
func (f *flight) read(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rec == nil {
		http.Error(w, "nothing is recorded: POST to /debug/flight/trace/start", http.StatusConflict)
		return
	}
	// The recorder must not wait for a slow reader.
	var data bytes.Buffer
	if _, err := f.rec.WriteTo(&data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = data.WriteTo(w) // only the connection can fail
}

func (f *flight) start(*http.Request) error {
	if f.rec != nil {
		return nil
	}
	rec := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: f.period, MaxBytes: flightBytes})
	if err := rec.Start(); err != nil {
		return err
	}
	f.rec = rec
	return nil
}

func (f *flight) stop(*http.Request) error {
	if f.rec != nil {
		f.rec.Stop()
		f.rec = nil
	}
	return nil
}

// setPeriod sets how far the trace goes back. One that is recorded begins anew.
func (f *flight) setPeriod(r *http.Request) error {
	text := r.FormValue("period")
	period, err := time.ParseDuration(text)
	if err != nil || period <= 0 || period > maxPeriod {
		return fmt.Errorf("period %q is no time up to %s", text, maxPeriod)
	}
	f.period = period
	if f.rec == nil {
		return nil
	}
	if err := f.stop(r); err != nil {
		return err
	}
	return f.start(r)
}
