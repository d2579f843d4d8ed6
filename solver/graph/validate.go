package graph

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// loadError is the mistake of an op, in the words clients look for.
func loadError(format string, args ...any) error {
	return fmt.Errorf("failed to load LLB: "+format, args...)
}

func validate(op *pb.Op) error {
	switch o := op.Op.(type) {
	case nil:
		// The terminal has no payload, but it is not a vertex.
		return errors.New("failed to load cache key: no support for <nil>")
	case *pb.Op_Source:
		if o.Source == nil {
			return loadError("invalid nil source op")
		}
	case *pb.Op_Exec:
		return validateExec(o.Exec)
	case *pb.Op_File:
		return validateFile(o.File)
	case *pb.Op_Build:
		return validateBuild(o.Build, len(op.Inputs))
	case *pb.Op_Merge:
		return validateMerge(o.Merge, len(op.Inputs))
	case *pb.Op_Diff:
		return validateDiff(o.Diff, len(op.Inputs))
	case *pb.Op_Passthrough:
		return validatePassthrough(o.Passthrough, len(op.Inputs))
	}
	return nil
}

func validateExec(op *pb.ExecOp) error {
	switch {
	case op == nil:
		return loadError("invalid nil exec op")
	case op.Meta == nil:
		return loadError("invalid exec op with no meta")
	case len(op.Meta.Args) == 0:
		return loadError("invalid exec op with no args")
	case len(op.Mounts) == 0:
		return loadError("invalid exec op with no mounts")
	case slices.Contains(op.CdiDevices, nil):
		return loadError("invalid exec op with nil device")
	}
	return validateMounts(op.Mounts)
}

func validateMounts(mounts []*pb.Mount) error {
	root := false
	outputs := map[int64]bool{}
	for _, m := range mounts {
		if m == nil {
			return loadError("invalid exec op with nil mount")
		}
		if m.Dest == "/" {
			if m.MountType != pb.MountType_BIND {
				return loadError("invalid mount type %s for /", m.MountType)
			}
			root = true
		}
		// -1 is no input; what is beyond the inputs is told when they are.
		if m.Input < -1 {
			return loadError("invalid mount input %d of %s", m.Input, m.Dest)
		}
		if !hasOutput(m) {
			continue
		}
		// Results are kept by their number, which must not be larger than the op itself is.
		if m.Output >= int64(len(mounts)) {
			return loadError("invalid mount output %d of %s", m.Output, m.Dest)
		}
		if outputs[m.Output] {
			return loadError("duplicate mount output %d", m.Output)
		}
		outputs[m.Output] = true
	}
	if !root {
		return loadError("invalid exec op with no rootfs")
	}
	return nil
}

// hasOutput tells whether a result of the op is what was mounted. Other mounts have no tree that
// could be one, whatever their number says.
func hasOutput(m *pb.Mount) bool {
	return m.Output >= 0 && (m.MountType == pb.MountType_BIND || m.MountType == pb.MountType_CACHE)
}

func validateFile(op *pb.FileOp) error {
	if op == nil {
		return loadError("invalid nil file op")
	}
	if len(op.Actions) == 0 {
		return loadError("invalid file op with no actions")
	}
	for _, a := range op.Actions {
		if a == nil || a.Action == nil {
			return loadError("invalid file op with nil action")
		}
	}
	return nil
}

func validateMerge(op *pb.MergeOp, inputs int) error {
	if op == nil {
		return loadError("invalid nil merge op")
	}
	for _, in := range op.Inputs {
		if in == nil {
			return loadError("invalid merge op with nil input")
		}
		if !isInput(in.Input, inputs) {
			return loadError("invalid merge input index %d", in.Input)
		}
	}
	return nil
}

// isInput tells whether an index is one of so many inputs or stands for the empty tree.
func isInput(i int64, inputs int) bool { return i == pb.NoInput || i >= 0 && i < int64(inputs) }

func validateBuild(op *pb.BuildOp, inputs int) error {
	if op == nil {
		return loadError("invalid nil build op")
	}
	if op.Builder != pb.LLBBuilder {
		return loadError("only LLB builder is currently allowed")
	}
	in := op.Inputs[pb.LLBDefinition]
	if in == nil {
		return loadError("invalid build op with no input %s", pb.LLBDefinition)
	}
	if in.Input < 0 || in.Input >= int64(inputs) {
		return loadError("invalid build op input index %d", in.Input)
	}
	return nil
}

func validateDiff(op *pb.DiffOp, inputs int) error {
	if op == nil {
		return loadError("invalid nil diff op")
	}
	if op.Lower == nil || op.Upper == nil {
		return loadError("invalid diff op with nil lower or upper input")
	}
	for _, i := range []int64{op.Lower.Input, op.Upper.Input} {
		if !isInput(i, inputs) {
			return loadError("invalid diff input index %d", i)
		}
	}
	return nil
}

func validatePassthrough(op *pb.PassthroughOp, inputs int) error {
	switch {
	case op == nil:
		return loadError("invalid nil passthrough op")
	case op.Id == "":
		return loadError("invalid passthrough op with no id")
	case len(op.Outputs) == 0:
		return loadError("invalid passthrough op with no outputs")
	}
	for _, out := range op.Outputs {
		if out < 0 || out >= int64(inputs) {
			return loadError("invalid passthrough output input index %d", out)
		}
	}
	return nil
}

// isUnpinnedLocal tells whether a source reads the files of whichever client asks.
func isUnpinnedLocal(s *pb.SourceOp) bool {
	return strings.HasPrefix(s.Identifier, "local://") && s.Attrs["local.session"] == ""
}

// hasChanged tells whether what a source yields has another form since a version.
func hasChanged(s *pb.SourceOp, version compat.Version) bool {
	return version == compat.V10 && strings.HasPrefix(s.Identifier, pb.SchemeGit)
}
