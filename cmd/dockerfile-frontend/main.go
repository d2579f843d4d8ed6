// Command dockerfile-frontend is the Dockerfile frontend as a program of its own, for an image that
// "# syntax=" or "gateway.v0" names. A daemon starts it in a container, gives it its options in the
// environment and serves it the gateway API over standard input and output; standard error is shown
// in the log of the build. It takes no arguments.
//
// It is the frontend that is built into the daemon and into clients, and gives the same results.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(version.Line("dockerfile-frontend"))
		return
	}
	if err := gateway.Serve(context.Background(), os.Stdin, os.Stdout, os.Environ(), dockerfile.Build); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}
