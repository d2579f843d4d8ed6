package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// lingerTimeout is how long a program may take to end once it has returned.
const lingerTimeout = 30 * time.Second

var (
	errLingers    = errors.New("the frontend has returned and does not end")
	errIncomplete = errors.New("no result for incomplete build")
)

// run starts the program, serves it and returns what it returns. Nothing of it is left afterwards.
func (f *Frontend) run(ctx context.Context, c client.Client, runner frontend.Runner, p frontend.Program) (*client.Result, error) {
	running, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	api := gateway.NewServer(c)
	ours, theirs := net.Pipe()
	srv := f.newServer(api, kill)
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.serve(ours)
	}()
	go func() {
		if api.Await(running) {
			killLater(running, kill)
		}
	}()
	said := &tail{}
	p.Stdin, p.Stdout, p.Stderr = theirs, theirs, said
	err := runner.RunProgram(running, p)
	killed := running.Err() != nil
	// Calls that the program did not wait for end now.
	_ = theirs.Close() // a pipe in memory
	<-served
	srv.close()

	res, returned, rerr := api.Returned()
	switch {
	case rerr != nil:
		return nil, rerr
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case returned && (err == nil || killed):
		return res, nil
	case err == nil:
		err = errIncomplete
	}
	return nil, withLastWords(err, said)
}

// killLater gives a program that has returned some time to end by itself.
func killLater(ctx context.Context, kill context.CancelCauseFunc) {
	timer := time.NewTimer(lingerTimeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		kill(errLingers)
	case <-ctx.Done():
	}
}

// withLastWords adds what a program said last to the error that it ended with.
func withLastWords(err error, said *tail) error {
	words := said.text()
	switch {
	case words == "":
		return err
	case strings.Contains(words, "\n"):
		return fmt.Errorf("%w:\n%s", err, words)
	}
	return fmt.Errorf("%w: %s", err, words)
}

// errIdle is the end of a program that hangs.
func errIdle(d time.Duration) error {
	return status.New(codes.DeadlineExceeded, fmt.Sprintf("the frontend has asked for nothing for %s and is given up", d))
}
