// Command buildctl is the command line client of buildkitd. It turns flags into requests of
// package client and prints what comes of them; it decides nothing about builds itself.
//
// Each command has a file of its own, named after it; parsing of a flag that has a grammar stands
// in a file named after the flag.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/openbuildkit/buildkit/api/status"
)

func main() {
	// Files have exactly the modes that builds ask for.
	clearUmask()
	collectLate()
	ctx, stop := withSignals(context.Background())
	code := execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// collectLate puts off the first garbage collection until there is more garbage than most commands
// make in all: it would take a third of the time of a build that finds everything in the cache.
// From then on collections come as usual.
func collectLate() {
	const heap, usual = 32 << 20, 4 << 20 // bytes at which the first one begins, here and elsewhere
	before := debug.SetGCPercent(100 * heap / usual)
	if before != 100 {
		debug.SetGCPercent(before) // somebody knows better
		return
	}
	runtime.AddCleanup(new(sentinel), func(percent int) { debug.SetGCPercent(percent) }, before)
}

// sentinel is what the first collection finds unused. It is large enough to be on its own.
type sentinel [32]byte

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string) int {
	app := newApp()
	app.root.SetArgs(args)
	err := app.root.ExecuteContext(ctx)
	err = errors.Join(err, app.close(err))
	if err == nil {
		return 0
	}
	printError(os.Stderr, err, app.flags.debug)
	return 1
}

// printError writes the lines of source files that err is about, the reasons of policies, and err
// itself.
func printError(w io.Writer, err error, debug bool) {
	_ = status.PrintSources(w, err)
	var deny *status.DenyError
	if errors.As(err, &deny) {
		for _, m := range deny.Messages {
			if m.GetMessage() != "" {
				fmt.Fprintf(w, "policy deny: %s\n", m.GetMessage())
			}
		}
	}
	fmt.Fprintf(w, "error: %v\n", err)
	if debug {
		_ = status.PrintStacks(w, err)
	}
}

// forceAfter is how many signals end the program at once.
const forceAfter = 3

// withSignals returns a context that the first signal cancels. The third ends the program.
func withSignals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, forceAfter)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case sig := <-signals:
				cancel(fmt.Errorf("%s: %w", sig, context.Canceled))
				if n >= forceAfter {
					fmt.Fprintf(os.Stderr, "got %d signals, forcing exit\n", n)
					os.Exit(1)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
