package llb_test

import (
	"context"
	"fmt"
	"log"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
)

// describe prints the ops of a graph, inputs first.
func describe(s llb.State) {
	def, err := s.Marshal(context.Background(), llb.Platform(ocispec.Platform{OS: "linux", Architecture: "amd64"}))
	if err != nil {
		log.Fatal(err)
	}
	for _, dt := range def.Def {
		op := &pb.Op{}
		if err := proto.Unmarshal(dt, op); err != nil {
			log.Fatal(err)
		}
		switch o := op.Op.(type) {
		case *pb.Op_Source:
			fmt.Println("source", o.Source.Identifier)
		case *pb.Op_Exec:
			fmt.Println("exec", o.Exec.Meta.Args, "in", o.Exec.Meta.Cwd)
		case *pb.Op_File:
			fmt.Println("file,", len(o.File.Actions), "actions")
		case *pb.Op_Merge:
			fmt.Println("merge of", len(o.Merge.Inputs))
		case *pb.Op_Diff:
			fmt.Println("diff")
		}
	}
}

// A State is a tree of files with settings for the processes that run in it. Each method returns a new
// one.
func Example() {
	build := llb.Image("golang:1.26").
		Dir("/src").
		AddEnv("CGO_ENABLED", "0").
		Run(
			llb.Shlex("go build -o /out/app ."),
			llb.AddMount("/src", llb.Local("context"), llb.Readonly()),
			llb.AddMount("/root/.cache", llb.Scratch(), llb.PersistentCache("go", llb.CacheShared)),
		)
	app := build.AddMount("/out", llb.Scratch())
	describe(llb.Scratch().File(llb.Copy(app.GetMount("/out"), "/app", "/app")))
	// Output:
	// source docker-image://docker.io/library/golang:1.26
	// source local://context
	// exec [go build -o /out/app .] in /src
	// file, 1 actions
}

// Merge lays trees over each other without copying; Diff is what a step has changed.
func ExampleMerge() {
	base := llb.Image("alpine")
	git := base.Run(llb.Shlex("apk add git")).Root()
	curl := base.Run(llb.Shlex("apk add curl")).Root()
	describe(llb.Merge([]llb.State{base, llb.Diff(base, git), llb.Diff(base, curl)}))
	// Output:
	// source docker-image://docker.io/library/alpine:latest
	// exec [apk add git] in /
	// diff
	// exec [apk add curl] in /
	// diff
	// merge of 3
}

// Several actions can follow each other in one step.
func ExampleState_File() {
	src := llb.Local("context", llb.IncludePatterns("*.conf"))
	describe(llb.Scratch().File(
		llb.Mkdir("/etc/app", 0o755, llb.WithParents()).
			Mkfile("/etc/app/version", 0o644, []byte("1.0\n")).
			Copy(src, "*.conf", "/etc/app/", llb.AllowWildcard()),
	))
	// Output:
	// source local://context
	// file, 3 actions
}

// A program that writes its graph to standard output is a build: program | buildctl build
func ExampleState_Marshal() {
	def, err := llb.Image("alpine").Run(llb.Shlex("true")).Root().Marshal(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	data, err := proto.Marshal(def)
	if err != nil {
		log.Fatal(err)
	}
	if len(os.Args) == 0 { // never, in a test
		_, _ = os.Stdout.Write(data)
	}
	fmt.Println(len(def.Def), "entries")
	// Output:
	// 3 entries
}
