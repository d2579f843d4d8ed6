package lower

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
)

func (b *Build) expose(s *stage, e *instruction.Expose) error {
	var ports []string
	for _, word := range e.Ports {
		lex := b.lex.word()
		lex.Split = true
		r, err := b.expandWith(lex, word, s.env)
		if err != nil {
			return err
		}
		b.reportUnset(s, e.Node(), r.Unmatched)
		for _, text := range r.Fields {
			spec, err := parsePort(text)
			if err != nil {
				return err
			}
			b.lintPort(e, text, spec)
			ports = append(ports, spec.ports()...)
			if err := b.grow(portSize * (int(spec.last-spec.first) + 1)); err != nil {
				return err
			}
		}
	}
	slices.Sort(ports)
	if s.image.Config.ExposedPorts == nil {
		s.image.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		s.image.Config.ExposedPorts[p] = struct{}{}
	}
	s.commit(b.epoch, fmt.Sprintf("EXPOSE %v", ports), false)
	return nil
}

// portSize is what a port takes in the image and its history, in bytes and about.
const portSize = 64

func (b *Build) lintPort(e *instruction.Expose, text string, spec portSpec) {
	if spec.mapped {
		b.opt.Linter.Report(lint.ExposeInvalidFormat, e.Node(),
			"EXPOSE instruction should not define an IP address or host-port mapping, found '%s'", text)
	}
	if _, proto, ok := cutLast(text, "/"); ok && proto != strings.ToLower(proto) {
		b.opt.Linter.Report(lint.ExposeProtoCasing, e.Node(),
			"Defined protocol '%s' in EXPOSE instruction should be lowercase", text)
	}
}

// portSpec is a range of ports of a protocol.
type portSpec struct {
	first, last uint16
	proto       string
	// mapped tells that a host address or port was given too.
	mapped bool
}

func (p portSpec) ports() []string {
	var out []string
	for n := int(p.first); n <= int(p.last); n++ {
		out = append(out, strconv.Itoa(n)+"/"+p.proto)
	}
	return out
}

// parsePort parses "[[ip:]host:]port[-port][/proto]". The part about the host has no effect.
func parsePort(text string) (portSpec, error) {
	spec := portSpec{proto: "tcp"}
	container := text
	if before, proto, ok := cutLast(text, "/"); ok {
		spec.proto = strings.ToLower(proto)
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, spec.proto) {
			return spec, fmt.Errorf("invalid port: %q: invalid proto: %s", text, proto)
		}
		container = before
	}
	if _, after, ok := cutLast(container, ":"); ok {
		spec.mapped = true
		container = after
	}
	if container == "" {
		return spec, fmt.Errorf("no port specified: %s<empty>", text)
	}
	first, last, ranged := strings.Cut(container, "-")
	if !ranged {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	z, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a > z {
		return spec, fmt.Errorf("invalid containerPort: %s", container)
	}
	spec.first, spec.last = uint16(a), uint16(z)
	return spec, nil
}

// cutLast cuts s around the last instance of sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
