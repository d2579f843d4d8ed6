package platform

import (
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// NotRunError says why a host cannot execute programs of a platform, and what to do about it.
type NotRunError struct {
	Platform ocispec.Platform
	Reason   string
}

func (e *NotRunError) Error() string {
	return fmt.Sprintf("the host of the daemon cannot run %s: %s", platforms.FormatAll(e.Platform), e.Reason)
}

const install = "install one, such as qemu-user-static, that registers with binfmt_misc and flag F"

// Explain implements Set. It looks at the machine, not at what was configured.
func (h *Host) Explain(p ocispec.Platform) error {
	p = platforms.Normalize(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look()
	if runs(h.seen.list, p) {
		return nil
	}
	return &NotRunError{Platform: p, Reason: h.seen.reason(h.native, p)}
}

// runs tells whether programs of p can be executed where those of the list can. Of emulators it is
// not known which variants they stop at.
func runs(list []ocispec.Platform, p ocispec.Platform) bool {
	return slices.ContainsFunc(list, func(have ocispec.Platform) bool {
		return have.OS == p.OS && have.Architecture == p.Architecture && (have.Variant == p.Variant || p.Architecture != "amd64")
	})
}

// reason returns why the machine does not run p.
func (s *seen) reason(native, p ocispec.Platform) string {
	switch {
	case p.OS != native.OS:
		return "it runs " + native.OS
	case p.Architecture == native.Architecture:
		return "its processor is older"
	}
	i := slices.IndexFunc(architectures, func(a architecture) bool { return a.name() == p.Architecture })
	if i < 0 {
		return "no emulator is known"
	}
	program := architectures[i].program()
	for _, r := range s.registrations {
		switch {
		case !r.matches(program):
		case !r.enabled:
			return fmt.Sprintf("its emulator %s is registered with binfmt_misc but disabled there", r.interpreter)
		default:
			return fmt.Sprintf("its emulator %s is registered with binfmt_misc without flag F, so containers do not see it", r.interpreter)
		}
	}
	return "no emulator is registered; " + install
}
