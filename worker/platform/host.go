package platform

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/go-archvariant"
)

// How long a list is believed if nothing else is said: reading takes a millisecond, trying a
// hundred.
const (
	readMaxAge  = 10 * time.Second
	triedMaxAge = 10 * time.Minute
)

// Config says what a Host is to be.
type Config struct {
	// Fixed, if not empty, are the platforms that are listed, whatever the machine can run; the
	// first is the default one.
	Fixed []ocispec.Platform
	// MaxAge is how long a list is believed before the machine is looked at again; 0 leaves it to
	// the Host.
	MaxAge time.Duration
	// Dir is a folder for short-lived files that may be executed.
	Dir string
}

// Host is the Set of this machine.
type Host struct {
	conf   Config
	native ocispec.Platform
	// tries tells whether a program of an architecture can be executed.
	tries func(*architecture) bool
	read  func() ([]*registration, error)
	now   func() time.Time

	mu sync.Mutex
	// second tells which architectures the processor runs besides its own. It never changes.
	second map[string]bool
	seen   *seen
}

// seen is what the machine was once found to be able to do.
type seen struct {
	list          []ocispec.Platform
	registrations []*registration
	until         time.Time
}

var _ Set = (*Host)(nil)

// NewHost returns the Set of this machine. It looks at nothing yet.
func NewHost(conf Config) *Host {
	return &Host{
		conf:   conf,
		native: nativePlatform(),
		tries:  prober{conf.Dir}.runs,
		read:   readBinfmt,
		now:    time.Now,
		second: map[string]bool{},
	}
}

// nativePlatform is that of this program.
func nativePlatform() ocispec.Platform {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = platforms.DefaultSpec().Variant
	}
	return platforms.Normalize(p)
}

// Default implements Set.
func (h *Host) Default() ocispec.Platform {
	if len(h.conf.Fixed) > 0 {
		return h.conf.Fixed[0]
	}
	return h.native
}

// List implements Set.
func (h *Host) List() []ocispec.Platform {
	if len(h.conf.Fixed) > 0 {
		return h.conf.Fixed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen == nil || !h.now().Before(h.seen.until) {
		h.look()
	}
	return h.seen.list
}

// look finds out what the machine runs now.
func (h *Host) look() {
	s := &seen{list: h.natives()}
	regs, err := h.read()
	var emulated []bool
	maxAge := readMaxAge
	if err == nil {
		s.registrations = regs
		emulated = h.registered(regs)
	} else {
		maxAge = triedMaxAge
		emulated = h.tried()
	}
	for i := range architectures {
		if a := &architectures[i]; a.name() != h.native.Architecture && (emulated[i] || h.runsSecond(a)) {
			s.list = append(s.list, a.platforms...)
		}
	}
	if h.conf.MaxAge > 0 {
		maxAge = h.conf.MaxAge
	}
	s.until = h.now().Add(maxAge)
	h.seen = s
}

// natives are the platforms of the processor's own architecture.
func (h *Host) natives() []ocispec.Platform {
	out := []ocispec.Platform{h.native}
	if h.native.Architecture != "amd64" {
		return out
	}
	highest, err := strconv.Atoi(strings.TrimPrefix(archvariant.AMD64Variant(), "v"))
	if err != nil {
		highest = 1
	}
	for v := 2; v <= highest; v++ {
		out = append(out, ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v" + strconv.Itoa(v)})
	}
	return out
}

// seconds are the architectures that some processors of another run by themselves.
var seconds = map[string]string{"386": "amd64", "arm": "arm64"}

func (h *Host) runsSecond(a *architecture) bool {
	if seconds[a.name()] != h.native.Architecture {
		return false
	}
	ok, known := h.second[a.name()]
	if !known {
		ok = h.tries(a)
		h.second[a.name()] = ok
	}
	return ok
}

// registered tells which architectures have an emulator that containers can use.
func (h *Host) registered(regs []*registration) []bool {
	out := make([]bool, len(architectures))
	for i := range architectures {
		program := architectures[i].program()
		out[i] = slices.ContainsFunc(regs, func(r *registration) bool {
			return r.enabled && r.fixed && r.matches(program)
		})
	}
	return out
}

// tried tells which architectures have programs that can be executed.
func (h *Host) tried() []bool {
	out := make([]bool, len(architectures))
	var group sync.WaitGroup
	for i := range architectures {
		if a := &architectures[i]; a.name() != h.native.Architecture && seconds[a.name()] != h.native.Architecture {
			group.Go(func() { out[i] = h.tries(a) })
		}
	}
	group.Wait()
	return out
}
