package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/sys/signal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
)

// Bounds of one stream of processes.
const (
	// queuedOutput is how many messages wait for a frontend that reads slowly.
	queuedOutput = 16
	// rememberedProcesses is how many processes that have ended are known, so that what was sent to
	// them meanwhile is no mistake.
	rememberedProcesses = 1000
)

// ExecProcess runs processes of containers, any number of them on one stream. A message that cannot
// be done, and a process that does not start, end the stream with an error, and all its processes
// with it.
func (s *Server) ExecProcess(stream gatewaypb.LLBBridge_ExecProcessServer) error {
	return s.exec(stream.Context(), stream)
}

type execStream = grpc.BidiStreamingServer[gatewaypb.ExecMessage, gatewaypb.ExecMessage]

// exec serves a stream until the frontend ends it and no process is left, or until ctx ends.
func (s *Server) exec(ctx context.Context, stream execStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &executor{
		server: s, ctx: ctx, fail: cancel,
		out: make(chan *gatewaypb.ExecMessage, queuedOutput), processes: map[string]*serverProcess{}, ended: map[string]bool{},
	}
	received := make(chan struct{})
	sent := make(chan struct{})
	// Neither is waited for if there was an error: they may be blocked until this call returns.
	go func() {
		defer close(received)
		defer e.recovered()
		e.receive(stream)
	}()
	go func() {
		defer close(sent)
		e.send(stream)
	}()
	select {
	case <-received:
		e.finish()
		select {
		case <-sent:
		case <-ctx.Done():
		}
	case <-ctx.Done():
		e.finish()
	}
	cancel(errStreamDone)
	if err := context.Cause(ctx); err != errStreamDone { //nolint:errorlint // the sentinel itself
		return err
	}
	return nil
}

var errStreamDone = errors.New("all processes have ended")

// executor is the daemon's side of one stream.
type executor struct {
	server *Server
	ctx    context.Context //nolint:containedctx // ends with the stream; processes run in it
	fail   context.CancelCauseFunc
	// out is closed by finish, when nobody writes to it any more.
	out chan *gatewaypb.ExecMessage

	mu        sync.Mutex // orders users.Add before users.Wait
	closed    bool
	processes map[string]*serverProcess
	ended     map[string]bool
	users     sync.WaitGroup
}

// recovered turns a panic of a goroutine of the stream into the stream's error. It must be deferred
// itself.
func (e *executor) recovered() {
	if r := recover(); r != nil {
		e.fail(status.WithStack(status.New(codes.Internal, fmt.Sprintf("process: panic: %v", r))))
	}
}

func (e *executor) receive(stream execStream) {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			// No more input, but the processes go on.
			e.closeInputs()
			return
		}
		if err == nil {
			err = e.handle(msg)
		}
		if err != nil {
			e.fail(err)
			return
		}
	}
}

func (e *executor) send(stream execStream) {
	for msg := range e.out {
		if err := stream.Send(msg); err != nil {
			e.fail(err)
			return
		}
	}
}

// finish waits for all processes. None starts afterwards.
func (e *executor) finish() {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	e.mu.Unlock()
	e.users.Wait()
	if first {
		close(e.out)
	}
}

// put queues a message for the frontend. It gives up when ctx ends.
func (e *executor) put(ctx context.Context, msg *gatewaypb.ExecMessage) error {
	select {
	case e.out <- msg:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// handle does what one message asks for.
func (e *executor) handle(msg *gatewaypb.ExecMessage) error {
	id := msg.GetProcessID()
	if err := checkID("ProcessID", id); err != nil {
		return err
	}
	if init := msg.GetInit(); init != nil {
		return e.start(id, init)
	}
	p, err := e.process(id)
	if p == nil || err != nil {
		return err
	}
	switch in := msg.GetInput().(type) {
	case *gatewaypb.ExecMessage_File:
		return p.input(in.File)
	case *gatewaypb.ExecMessage_Resize:
		p.resize(in.Resize)
		return nil
	case *gatewaypb.ExecMessage_Signal:
		return p.signal(in.Signal)
	default:
		return invalid("process %s: the message is none that a frontend sends", id)
	}
}

// process returns the process of an id, nil if it has ended.
func (e *executor) process(id string) (*serverProcess, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.processes[id]
	if p == nil && !e.ended[id] {
		return nil, status.New(codes.NotFound, fmt.Sprintf("IO for process %q not found", id))
	}
	return p, nil
}

func (e *executor) start(id string, init *gatewaypb.InitMessage) error {
	p, req, err := e.newProcess(id, init)
	if err != nil {
		return err
	}
	ctr := e.server.container(init.GetContainerID())
	if ctr == nil {
		return status.New(codes.NotFound, fmt.Sprintf("container %q previously released or not created", init.GetContainerID()))
	}
	if err := e.add(p); err != nil {
		return err
	}
	go func() {
		defer e.users.Done()
		defer e.remove(p)
		defer e.recovered()
		if err := p.run(ctr, req); err != nil {
			e.fail(err)
		}
	}()
	return nil
}

func (e *executor) add(p *serverProcess) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return context.Cause(e.ctx)
	}
	if e.processes[p.id] != nil {
		return status.New(codes.AlreadyExists, fmt.Sprintf("Process %s already exists", p.id))
	}
	delete(e.ended, p.id)
	e.processes[p.id] = p
	e.users.Add(1)
	return nil
}

func (e *executor) remove(p *serverProcess) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.processes, p.id)
	if len(e.ended) >= rememberedProcesses {
		clear(e.ended)
	}
	e.ended[p.id] = true
}

func (e *executor) closeInputs() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.processes {
		p.stdin.end()
	}
}

// parseSignal reads the name of a signal, with or without SIG.
func parseSignal(name string) (syscall.Signal, error) {
	sig, ok := signal.SignalMap[strings.TrimPrefix(name, "SIG")]
	if !ok {
		return 0, invalid("Unknown signal %s", name)
	}
	return sig, nil
}
