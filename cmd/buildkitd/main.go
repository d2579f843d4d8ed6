// Command buildkitd is the build daemon: it reads its configuration, puts the parts together that
// the packages below internal describe, and serves until it is told to stop.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

func main() {
	// Files have exactly the modes that builds ask for.
	unix.Umask(0)
	if err := newCommand(os.Args[1:], os.Getenv, run).ExecuteContext(context.Background()); err != nil {
		report(os.Stderr, err)
		os.Exit(1)
	}
}

// report prints why the daemon cannot go on: the cause first, then where it is and its stacks.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "buildkitd: %v\n", err)
	var syntax *config.SyntaxError
	if errors.As(err, &syntax) {
		fmt.Fprintln(w, syntax.Where())
	}
	if perr := status.PrintStacks(w, err); perr != nil {
		fmt.Fprintln(w, perr)
	}
}
