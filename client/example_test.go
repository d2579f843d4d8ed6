package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/client/progress"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/secrets"
)

// The Dockerfile of a folder is built by the daemon, pushed to a registry, and shown as it is built.
func ExampleClient_Solve() {
	ctx := context.Background()
	c, err := client.New("unix:///run/buildkit/buildkitd.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	dir, err := filesync.NewFS(".")
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	store, err := secrets.NewStore([]secrets.Source{{ID: "token", Env: "TOKEN"}})
	if err != nil {
		log.Fatal(err)
	}
	display, err := progress.New(progress.Auto, os.Stderr, os.Getenv)
	if err != nil {
		log.Fatal(err)
	}
	shown := make(chan error, 1)
	go func() { shown <- display.Run(ctx) }()
	resp, err := c.Solve(ctx, nil, client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{"target": "release"},
		LocalMounts:   map[string]fsutil.FS{"context": dir, "dockerfile": dir},
		Session:       []session.Attachable{secrets.NewProvider(store)},
		Exports:       []client.Export{{Type: "image", Attrs: map[string]string{"name": "registry.example.com/app", "push": "true"}}},
		Progress:      display,
	})
	display.Close()
	<-shown
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.ExporterResponse["containerimage.digest"])
}

// A frontend of this program has the daemon run a step, reads what it made, and decides what to do next.
func ExampleClient_Build() {
	ctx := context.Background()
	c, err := client.New(client.DefaultAddress)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	base := llb.Image("docker.io/library/alpine:3")
	_, err = c.Build(ctx, client.SolveOpt{
		Exports: []client.Export{{Type: client.ExporterLocal, OutputDir: "out"}},
	}, "example", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := base.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def})
		if err != nil {
			return nil, err
		}
		ref, err := res.SingleRef()
		if err != nil {
			return nil, err
		}
		version, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/etc/alpine-release"})
		if err != nil {
			return nil, err
		}
		def, err = llb.Scratch().File(llb.Mkfile("/base", 0o644, version)).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return g.Solve(ctx, gateway.SolveRequest{Definition: def})
	})
	if err != nil {
		log.Fatal(err)
	}
}
