package instruction

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tonistiigi/go-csvvalue"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Network modes of RUN --network.
const (
	NetworkDefault = "default"
	NetworkNone    = "none"
	NetworkHost    = "host"
)

// Security modes of RUN --security.
const (
	SecuritySandbox  = "sandbox"
	SecurityInsecure = "insecure"
)

// Run executes a command.
type Run struct {
	base
	Command
	// Mounts are the values of --mount, unexpanded.
	Mounts []RawMount
	// Network and Security are one of the constants; empty is the default.
	Network, Security string
	// Devices are the values of --device, unexpanded.
	Devices []string
}

// Heredocs returns the here-documents of the command.
func (r *Run) Heredocs() []parser.Heredoc { return r.node.Heredocs }

func parseRun(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	r := &Run{base: base{node}, Command: commandOf(node, node.Args)}
	var mounts []string
	f.strs(&mounts, "mount")
	f.str(&r.Network, "network")
	f.str(&r.Security, "security")
	f.strs(&r.Devices, "device")
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	for _, m := range mounts {
		raw, err := splitMount(m)
		if err != nil {
			return nil, err
		}
		r.Mounts = append(r.Mounts, raw)
	}
	if !slices.Contains([]string{"", NetworkDefault, NetworkNone, NetworkHost}, r.Network) {
		return nil, fmt.Errorf("invalid network mode %q", r.Network)
	}
	if !slices.Contains([]string{"", SecuritySandbox, SecurityInsecure}, r.Security) {
		return nil, fmt.Errorf("security %q is not valid", r.Security)
	}
	return r, nil
}

// RawMount is the value of a --mount flag: what stages depend on is known, the rest is not
// expanded.
type RawMount struct {
	// From names a stage, an image or a named context; often empty.
	From   string
	fields []string
}

var errMountFromExpansion = errors.New("'from' doesn't support variable expansion, define alias stage instead")

func splitMount(value string) (RawMount, error) {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return RawMount{}, fmt.Errorf("failed to parse csv mounts: %w", err)
	}
	m := RawMount{fields: fields}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		if !strings.EqualFold(key, "from") {
			continue
		}
		if strings.Contains(value, "$") {
			return RawMount{}, errMountFromExpansion
		}
		m.From = value
	}
	return m, nil
}
