// Command nested writes a definition in which a step makes another definition, which is built then:
// what is to be done is found out by a step of the build itself.
//
//	nested busybox | buildctl build --output type=local,dest=out
//
// The step here only copies a definition that this program has made; it could be any program that
// knows LLB.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/client/llb"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: nested IMAGE")
		os.Exit(1)
	}
	if err := run(context.Background(), os.Args[1], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "nested: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, image string, w io.Writer) error {
	base := llb.Image(image)
	inner, err := base.Run(llb.Shell("echo built from within >/out/result")).AddMount("/out", llb.Scratch()).GetMount("/out").Marshal(ctx)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(inner)
	if err != nil {
		return err
	}
	given := llb.Scratch().File(llb.Mkfile("/inner", 0o644, data))
	step := base.Run(llb.Shell("cp /in/inner /out/made"), llb.AddMount("/in", given, llb.Readonly())).AddMount("/out", llb.Scratch())
	def, err := llb.Build(step.GetMount("/out"), "made").Marshal(ctx)
	if err != nil {
		return err
	}
	if data, err = proto.Marshal(def); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
