// Command frontend is a language of builds of its own: a file Shopfile, each line of which is either
// "from IMAGE" or a command. It shows how a frontend is written once and run where it is wanted.
//
// Called with a folder and an output folder it runs on the side of the client, and the daemon needs to
// know nothing of the language:
//
//	go run ./examples/frontend CONTEXT OUT
//
// Without arguments it is the program of a frontend image, which a daemon starts in a container:
//
//	buildctl build --frontend gateway.v0 --opt source=registry.example.com/shop --local context=CONTEXT
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
)

// address is where the daemon is looked for unless $BUILDKIT_HOST says.
const address = client.DefaultAddress

func main() {
	if err := start(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, args []string) error {
	switch len(args) {
	case 0:
		return gateway.Serve(ctx, os.Stdin, os.Stdout, os.Environ(), shop)
	case 2:
		host := os.Getenv("BUILDKIT_HOST")
		if host == "" {
			host = address
		}
		return buildHere(ctx, host, args[0], args[1])
	}
	return errors.New("usage: frontend CONTEXT OUT")
}

// buildHere runs the frontend in this process and writes the result to the folder out.
func buildHere(ctx context.Context, host, dir, out string) error {
	c, err := client.New(host)
	if err != nil {
		return err
	}
	defer c.Close()
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	_, err = c.Build(ctx, client.SolveOpt{
		LocalMounts: map[string]fsutil.FS{"context": files},
		Exports:     []client.Export{{Type: client.ExporterLocal, OutputDir: out}},
	}, "shop", shop)
	return err
}

// shop is the frontend: it asks the daemon for the Shopfile, and for the tree that it describes.
func shop(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	text, err := readShopfile(ctx, c)
	if err != nil {
		return nil, err
	}
	tree, err := lower(text)
	if err != nil {
		return nil, err
	}
	def, err := tree.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, gateway.SolveRequest{Definition: def})
}

func readShopfile(ctx context.Context, c gateway.Client) ([]byte, error) {
	const name = "Shopfile"
	def, err := llb.Local("context", llb.IncludePatterns(name), llb.CustomName("[internal] load "+name)).Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, gateway.SolveRequest{Definition: def})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	return ref.ReadFile(ctx, gateway.ReadRequest{Filename: name})
}

// lower turns the text of a Shopfile into LLB.
func lower(text []byte) (llb.State, error) {
	tree := llb.Scratch()
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if image, ok := strings.CutPrefix(line, "from "); ok {
			tree = llb.Image(image)
			continue
		}
		if line == "" {
			continue
		}
		if tree.IsScratch() {
			return tree, fmt.Errorf("line %d: a command before the first image", n)
		}
		tree = tree.Run(llb.Shell(line), llb.CustomNamef("[%d] %s", n, line)).Root()
	}
	return tree, lines.Err()
}
