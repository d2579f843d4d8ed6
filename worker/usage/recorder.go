package usage

import (
	"sync"
	"time"
)

const (
	// interval is the time between two samples, at first.
	interval = 2 * time.Second
	// maxSamples is how many are kept: of more, every second one goes and the interval doubles.
	maxSamples = 20
)

// recorder takes samples now and then.
type recorder[T any] struct {
	mu    sync.Mutex
	read  func() *T
	all   []*T
	wait  time.Duration
	timer *time.Timer
}

// start begins; the first sample is taken after an interval. It may be called again.
func (r *recorder[T]) start(read func() *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		return
	}
	r.read, r.wait = read, interval
	r.timer = time.AfterFunc(r.wait, r.tick)
}

func (r *recorder[T]) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.read == nil {
		return
	}
	r.take()
	r.timer.Reset(r.wait)
}

// take adds a sample. The caller holds mu.
func (r *recorder[T]) take() {
	s := r.read()
	if s == nil {
		return
	}
	if r.all = append(r.all, s); len(r.all) <= maxSamples {
		return
	}
	kept := make([]*T, 0, maxSamples)
	for i := 0; i < len(r.all); i += 2 {
		kept = append(kept, r.all[i])
	}
	r.all, r.wait = kept, 2*r.wait
}

// stop takes no more samples, after a last one if that is asked for. It may be called again, or before
// start.
func (r *recorder[T]) stop(last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.read == nil {
		return
	}
	r.timer.Stop()
	if last {
		r.take()
	}
	r.read = nil
}

// samples returns those that there are; with one of this moment, if now is set and it has not stopped.
func (r *recorder[T]) samples(now bool) []*T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now && r.read != nil {
		r.take()
	}
	return r.all[:len(r.all):len(r.all)]
}

// Step records what a step takes. A nil Step does nothing.
type Step struct {
	recorder recorder[Sample]
	// before and after take the times of the processors, which are read beside the step: on a large
	// machine that takes a while.
	before, after chan *SysCPU
	once          sync.Once
	system        *SysCPU
}

// Start begins, when the processes of the step are in their cgroup. net counts their network; nil if they have
// none of their own.
func (s *Step) Start(c *Cgroup, net func() *Network) {
	if s == nil {
		return
	}
	s.before = make(chan *SysCPU, 1)
	go func() { s.before <- readSysCPU() }()
	s.recorder.start(func() *Sample {
		sample := c.Read()
		if sample != nil && net != nil {
			sample.Network = net()
		}
		return sample
	})
}

// Sample takes a sample at once, where the cgroup goes with its last process.
func (s *Step) Sample() {
	if s != nil {
		s.recorder.samples(true)
	}
}

// Stop ends it, when the processes have ended and the cgroup is still there. It may be called again, or
// without Start.
func (s *Step) Stop() {
	if s == nil || s.before == nil || s.after != nil {
		return
	}
	s.recorder.stop(true)
	s.after = make(chan *SysCPU, 1)
	go func() { s.after <- readSysCPU() }()
}

// Samples returns what was recorded of a step that has stopped, nil if that is nothing.
func (s *Step) Samples() *Samples {
	if s == nil || s.after == nil {
		return nil
	}
	s.once.Do(func() {
		if before, after := <-s.before, <-s.after; before != nil && after != nil {
			s.system = after.since(before)
		}
	})
	all := s.recorder.samples(false)
	if len(all) == 0 {
		return nil
	}
	return &Samples{Samples: all, System: s.system}
}

// System records what the machine does.
type System struct{ recorder recorder[SysSample] }

// Start begins.
func (s *System) Start() { s.recorder.start(readSystem) }

// Stop ends it. It may be called again.
func (s *System) Stop() { s.recorder.stop(false) }

// Samples returns the samples until now.
func (s *System) Samples() []*SysSample { return s.recorder.samples(true) }
