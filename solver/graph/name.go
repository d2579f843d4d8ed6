package graph

import (
	"fmt"
	"strings"
	"unicode/utf8"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// defaultName is what is shown of an op to which its maker gave no name.
func defaultName(op *pb.Op, inputs []Edge) string {
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(o.Exec.Meta.Args, " ")
	case *pb.Op_File:
		names := make([]string, len(o.File.Actions))
		for i, a := range o.File.Actions {
			names[i] = actionName(a)
		}
		return strings.Join(names, ", ")
	case *pb.Op_Build:
		return "build"
	case *pb.Op_Merge:
		names := make([]string, len(o.Merge.Inputs))
		for i, in := range o.Merge.Inputs {
			names[i] = inputName(inputs, in.GetInput())
		}
		return "merge (" + strings.Join(names, ", ") + ")"
	case *pb.Op_Diff:
		return fmt.Sprintf("diff (%s) -> (%s)", inputName(inputs, o.Diff.Lower.Input), inputName(inputs, o.Diff.Upper.Input))
	case *pb.Op_Passthrough:
		return "passthrough " + o.Passthrough.Id
	}
	return "unknown"
}

func inputName(inputs []Edge, i int64) string {
	if i < 0 || i >= int64(len(inputs)) {
		return "scratch"
	}
	return shortened(inputs[i].Vertex.Name)
}

// maxInputName bounds what the name of an op has of each of its inputs: merges of merges of merges
// would have names of any length.
const maxInputName = 500

func shortened(name string) string {
	if len(name) <= maxInputName {
		return name
	}
	end := maxInputName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

func actionName(a *pb.FileAction) string {
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		return "copy " + a.Copy.GetSrc() + " " + a.Copy.GetDest()
	case *pb.FileAction_Mkfile:
		return "mkfile " + a.Mkfile.GetPath()
	case *pb.FileAction_Mkdir:
		return "mkdir " + a.Mkdir.GetPath()
	case *pb.FileAction_Rm:
		return "rm " + a.Rm.GetPath()
	case *pb.FileAction_Symlink:
		return "symlink " + a.Symlink.GetNewpath() + " -> " + a.Symlink.GetOldpath()
	}
	return "unknown"
}
