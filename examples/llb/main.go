// Command llb shows a build as a chain of programs. Each reads the LLB of a tree from standard input,
// adds a step and writes what comes out to standard output; the last one is buildctl:
//
//	go build -o /tmp/ ./examples/llb
//	/tmp/llb image busybox |
//		/tmp/llb run 'date > /built-at' |
//		/tmp/llb run 'rm /bin/vi' |
//		buildctl build --output type=local,dest=out
//
// Nothing is executed before the last program: what is piped is a description.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

// run adds the step that args name to the tree that is read from in, and writes the new one to out.
func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: llb image NAME | llb run COMMAND")
	}
	var tree llb.State
	switch args[0] {
	case "image":
		tree = llb.Image(args[1])
	case "run":
		base, err := read(in)
		if err != nil {
			return err
		}
		tree = base.Run(llb.Shell(args[1])).Root()
	default:
		return fmt.Errorf("unknown step %q", args[0])
	}
	def, err := tree.Marshal(context.Background())
	if err != nil {
		return err
	}
	data, err := proto.Marshal(def)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}

// read returns the tree whose description is read from in.
func read(in io.Reader) (llb.State, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return llb.State{}, err
	}
	def := &pb.Definition{}
	if err := proto.Unmarshal(data, def); err != nil {
		return llb.State{}, fmt.Errorf("standard input is no LLB: %w", err)
	}
	return llb.FromDefinition(def)
}
