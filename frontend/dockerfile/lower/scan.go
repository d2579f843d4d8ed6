package lower

import (
	"context"
	"slices"
	"strconv"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
)

// Arguments that only tell what is scanned besides the result: true, or names of stages with commas
// between them.
const (
	scanPrefix     = "BUILDKIT_SBOM_SCAN_"
	argScanContext = scanPrefix + "CONTEXT"
	argScanStage   = scanPrefix + "STAGE"
)

// scannedContext is the name of the build context among what is scanned.
const scannedContext = "context"

// Scanned is a stage or the build context, to be scanned besides the result.
type Scanned struct {
	// Name is different from all others and fit for a file.
	Name  string
	state llb.State
}

// MarshalScanned returns the definition of what is to be scanned, in which the vertices are those of
// the result.
func (r *Result) MarshalScanned(ctx context.Context, s Scanned) (*pb.Definition, error) {
	return r.marshal(ctx, s.state)
}

func (s *stage) noteScan(name, value string) {
	if s.scan == nil {
		s.scan = map[string]string{}
	}
	s.scan[name] = value
}

// scanned returns what is to be scanned besides the target: of the stages that are built those that
// say so, and the build context if one of them says that.
func (b *Build) scanned() []Scanned {
	if !b.opt.Scan {
		return nil
	}
	var out []Scanned
	taken := map[string]bool{}
	if slices.ContainsFunc(b.stages, func(s *stage) bool { return s.reached && b.scans(s, argScanContext) }) {
		b.context.need("/")
		out = append(out, Scanned{scannedContext, b.context.state})
		taken[scannedContext] = true
	}
	for _, s := range b.stages {
		if !s.reached || s == b.target || !b.scans(s, argScanStage) {
			continue
		}
		name := s.name
		if taken[name] {
			name += "-" + strconv.Itoa(s.index)
		}
		taken[name] = true
		out = append(out, Scanned{name, s.state})
	}
	return out
}

// scans tells whether an argument is on for a stage: what the stage declares, the build or the file
// for all.
func (b *Build) scans(s *stage, arg string) bool {
	value, ok := s.scan[arg]
	if !ok {
		if v := b.argValue(arg, nil); v != nil {
			value = *v
		}
	}
	if on, err := strconv.ParseBool(value); err == nil {
		return on
	}
	return slices.ContainsFunc(strings.Split(value, ","), func(name string) bool {
		return strings.EqualFold(strings.TrimSpace(name), s.name)
	})
}
