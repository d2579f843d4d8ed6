package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// Numbers of the streams of a process.
const (
	fdStdin  = 0
	fdStdout = 1
	fdStderr = 2
)

// queuedSignals is how many signals wait for a process that has not started yet.
const queuedSignals = 64

// serverProcess is a process of a container on a stream.
type serverProcess struct {
	id   string
	exec *executor
	// stdin is never nil; hasStdin tells whether the frontend has opened it.
	stdin    *inputPipe
	hasStdin bool
	sizes    chan client.WindowSize // the newest alone
	signals  chan syscall.Signal

	// life ends with the stream and with the container; what the process writes then is dropped.
	life    context.Context //nolint:containedctx // see above
	end     context.CancelFunc
	started sync.Once
}

// newProcess reads the message that starts a process.
func (e *executor) newProcess(id string, init *gatewaypb.InitMessage) (*serverProcess, client.StartRequest, error) {
	meta := init.GetMeta()
	req := client.StartRequest{
		Args: meta.GetArgs(), Env: meta.GetEnv(), User: meta.GetUser(), Cwd: meta.GetCwd(),
		Tty: init.GetTty(), SecurityMode: init.GetSecurity(), SecretEnv: init.GetSecretenv(),
		RemoveMountStubsRecursive: meta.GetRemoveMountStubsRecursive(),
	}
	switch {
	case meta == nil:
		return nil, req, invalid("process %s has no meta", id)
	case len(req.Args) == 0:
		return nil, req, invalid("process %s has no args", id)
	case slices.Contains(req.SecretEnv, nil):
		return nil, req, invalid("process %s has a nil secret", id)
	}
	p := &serverProcess{
		id: id, exec: e, stdin: newInputPipe(),
		sizes: make(chan client.WindowSize, 1), signals: make(chan syscall.Signal, queuedSignals),
	}
	p.life, p.end = context.WithCancel(e.ctx)
	for _, fd := range init.GetFds() {
		switch fd {
		case fdStdin:
			p.hasStdin = true
			req.Stdin = p.stdin
		case fdStdout:
			req.Stdout = &outputPipe{p: p, fd: fd}
		case fdStderr:
			req.Stderr = &outputPipe{p: p, fd: fd}
		default:
			return nil, req, invalid("process %s: fd %d is none of 0, 1 and 2", id, fd)
		}
	}
	return p, req, nil
}

// run runs the process to its end. The error is that it did not start.
func (p *serverProcess) run(ctr *heldContainer, req client.StartRequest) error {
	defer p.end()
	defer context.AfterFunc(ctr.life, p.end)()
	// A process that is to end reads nothing more.
	context.AfterFunc(p.life, func() { _ = p.stdin.Close() })
	proc, err := ctr.Start(p.life, req)
	if err != nil {
		return err
	}
	p.announce()
	controlled := make(chan struct{})
	go func() {
		defer close(controlled)
		p.control(proc)
	}()
	err = proc.Wait()
	p.end()
	<-controlled
	p.exited(err)
	return nil
}

// announce tells that the process runs, once, before anything else.
func (p *serverProcess) announce() {
	p.started.Do(func() {
		_ = p.put(p.life, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}})
	})
}

// control passes on what arrives for the process until it has ended.
func (p *serverProcess) control(proc client.Process) {
	for {
		// Neither fails but because of the process's end, or for good.
		select {
		case size := <-p.sizes:
			_ = proc.Resize(p.life, size)
		case sig := <-p.signals:
			_ = proc.Signal(p.life, sig)
		case <-p.life.Done():
			return
		}
	}
}

// exited tells of the end of the process.
func (p *serverProcess) exited(err error) {
	exit := &gatewaypb.ExitMessage{}
	if err != nil {
		exit.Code = status.UnknownExitStatus
		var e *status.ExitError
		if errors.As(err, &e) {
			exit.Code = e.Code
		}
		exit.Error = status.Proto(err)
	}
	ctx := p.exec.ctx
	_ = p.put(ctx, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Exit{Exit: exit}})
	_ = p.put(ctx, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Done{Done: &gatewaypb.DoneMessage{}}})
}

func (p *serverProcess) put(ctx context.Context, msg *gatewaypb.ExecMessage) error {
	msg.ProcessID = p.id
	return p.exec.put(ctx, msg)
}

// input takes a piece of standard input.
func (p *serverProcess) input(msg *gatewaypb.FdMessage) error {
	if msg.GetFd() != fdStdin || !p.hasStdin {
		return status.New(codes.OutOfRange, fmt.Sprintf("fd %d unavailable to write", msg.GetFd()))
	}
	p.stdin.write(msg.GetData())
	if msg.GetEOF() {
		p.stdin.end()
	}
	return nil
}

// resize remembers the newest size.
func (p *serverProcess) resize(msg *gatewaypb.ResizeMessage) {
	size := client.WindowSize{Rows: msg.GetRows(), Cols: msg.GetCols()}
	for {
		select {
		case p.sizes <- size:
			return
		default:
		}
		select {
		case <-p.sizes:
		default:
		}
	}
}

func (p *serverProcess) signal(msg *gatewaypb.SignalMessage) error {
	sig, err := parseSignal(msg.GetName())
	if err != nil {
		return err
	}
	select {
	case p.signals <- sig:
		return nil
	default:
		return status.New(codes.ResourceExhausted, fmt.Sprintf("process %s: more than %d signals are waiting", p.id, queuedSignals))
	}
}
