package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

func newDumpLLBCommand() *cobra.Command {
	var dot bool
	cmd := &cobra.Command{
		Use:   "dump-llb [llbfile]",
		Short: "dump LLB in human-readable format. LLB can be also passed via stdin. This command does not require the daemon to be running.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) > 0 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			ops, err := readOps(in)
			if err != nil {
				return err
			}
			if dot {
				return writeDot(cmd.OutOrStdout(), ops)
			}
			return writeOps(cmd.OutOrStdout(), ops)
		},
	}
	cmd.Flags().BoolVar(&dot, "dot", false, "Output dot format")
	return cmd
}

// llbOp is an op as it is dumped.
type llbOp struct {
	Op         *pb.Op
	Digest     digest.Digest
	OpMetadata *pb.OpMetadata
}

func readOps(r io.Reader) ([]llbOp, error) {
	def, err := readDefinition(r)
	if err != nil {
		return nil, err
	}
	ops := make([]llbOp, len(def.Def))
	for i, dt := range def.Def {
		op := &pb.Op{}
		if err := proto.Unmarshal(dt, op); err != nil {
			return nil, fmt.Errorf("failed to parse op: %w", plainProtoError(err))
		}
		dgst := digest.FromBytes(dt)
		md := def.Metadata[dgst.String()]
		if md == nil {
			md = &pb.OpMetadata{}
		}
		ops[i] = llbOp{Op: op, Digest: dgst, OpMetadata: md}
	}
	return ops, nil
}

// readDefinition reads a serialized definition.
func readDefinition(r io.Reader) (*pb.Definition, error) {
	dt, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	def := &pb.Definition{}
	if err := proto.Unmarshal(dt, def); err != nil {
		return nil, plainProtoError(err)
	}
	return def, nil
}

// plainProtoError replaces the no-break spaces that package proto puts into its texts, so that
// nobody matches on them.
func plainProtoError(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
}

func writeOps(w io.Writer, ops []llbOp) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	return nil
}

func writeDot(w io.Writer, ops []llbOp) error {
	var b strings.Builder
	b.WriteString("digraph {\n")
	for _, op := range ops {
		label, shape := dotNode(op)
		fmt.Fprintf(&b, "  %q [label=%q shape=%q];\n", op.Digest, label, shape)
	}
	for _, op := range ops {
		for i, in := range op.Op.GetInputs() {
			fmt.Fprintf(&b, "  %q -> %q [label=%q];\n", in.GetDigest(), op.Digest, dotEdge(op.Op, int64(i)))
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func dotNode(op llbOp) (label, shape string) {
	switch v := op.Op.GetOp().(type) {
	case *pb.Op_Source:
		return v.Source.GetIdentifier(), "ellipse"
	case *pb.Op_Exec:
		return strings.Join(v.Exec.GetMeta().GetArgs(), " "), "box"
	case *pb.Op_Build:
		return "build", "box3d"
	case *pb.Op_Merge:
		return "merge", "invtriangle"
	case *pb.Op_Diff:
		return "diff", "doublecircle"
	case *pb.Op_File:
		names := make([]string, len(v.File.GetActions()))
		for i, a := range v.File.GetActions() {
			names[i] = actionName(a)
		}
		return strings.Join(names, ","), "note"
	}
	return op.Digest.String(), "plaintext"
}

func actionName(a *pb.FileAction) string {
	switch v := a.GetAction().(type) {
	case *pb.FileAction_Copy:
		return fmt.Sprintf("copy{src=%s, dest=%s}", v.Copy.GetSrc(), v.Copy.GetDest())
	case *pb.FileAction_Mkfile:
		return fmt.Sprintf("mkfile{path=%s}", v.Mkfile.GetPath())
	case *pb.FileAction_Mkdir:
		return fmt.Sprintf("mkdir{path=%s}", v.Mkdir.GetPath())
	case *pb.FileAction_Symlink:
		return fmt.Sprintf("symlink{oldpath=%s, newpath=%s}", v.Symlink.GetOldpath(), v.Symlink.GetNewpath())
	case *pb.FileAction_Rm:
		return fmt.Sprintf("rm{path=%s}", v.Rm.GetPath())
	}
	return "unknown"
}

// dotEdge names the mount that an input of an exec is for, unless it is the root.
func dotEdge(op *pb.Op, input int64) string {
	for _, m := range op.GetExec().GetMounts() {
		if m.GetInput() == input && m.GetDest() != "/" {
			return m.GetDest()
		}
	}
	return ""
}
