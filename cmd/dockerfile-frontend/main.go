// Command dockerfile-frontend is the Dockerfile frontend as a program of its own, for an image that
// "# syntax=" or "gateway.v0" names. A daemon starts it in a container, gives it its options in the
// environment and serves it the gateway API over standard input and output; standard error is shown
// in the log of the build.
//
//	dockerfile-frontend [--channel=stable|labs]
//
// It is the frontend that is built into the daemon and into clients, and gives the same results. The
// channel labs has what is not yet in the stable language.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
)

func main() {
	channel := flag.String("channel", "stable", "of the language: stable or labs")
	showVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *showVersion {
		fmt.Println(version.Line("dockerfile-frontend"))
		return
	}
	build, err := frontendOf(*channel, flag.Args())
	if err == nil {
		err = gateway.Serve(context.Background(), os.Stdin, os.Stdout, os.Environ(), build)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func frontendOf(channel string, args []string) (gateway.BuildFunc, error) {
	switch {
	case len(args) > 0:
		return nil, fmt.Errorf("unexpected argument %q", args[0])
	case channel == "stable":
		return dockerfile.Build, nil
	case channel == "labs":
		return dockerfile.BuildLabs, nil
	}
	return nil, fmt.Errorf("unknown channel %q: it is stable or labs", channel)
}
