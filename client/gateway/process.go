package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/sys/signal"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
)

// Numbers of the streams of a process.
const (
	fdStdin  = 0
	fdStdout = 1
	fdStderr = 2
)

// chunkSize is how much input of a process is sent at once, in bytes.
const chunkSize = 32 << 10

type container struct {
	bridge gatewaypb.LLBBridgeClient
	id     string
}

// NewContainer implements Client.
func (c *Conn) NewContainer(ctx context.Context, req NewContainerRequest) (Container, error) {
	msg := &gatewaypb.NewContainerRequest{
		ContainerID: newID(),
		Network:     req.NetMode,
		Platform:    req.Platform,
		Constraints: req.Constraints,
		ExtraHosts:  req.ExtraHosts,
		Hostname:    req.Hostname,
	}
	for _, m := range req.Mounts {
		mount, err := encodeMount(m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
		msg.Mounts = append(msg.Mounts, mount)
	}
	if _, err := c.bridge.NewContainer(ctx, msg); err != nil {
		return nil, err
	}
	return &container{bridge: c.bridge, id: msg.ContainerID}, nil
}

func encodeMount(m Mount) (*pb.Mount, error) {
	msg := &pb.Mount{
		Selector:  m.Selector,
		Dest:      m.Dest,
		ResultID:  m.ResultID,
		Readonly:  m.Readonly,
		MountType: m.MountType,
		TmpfsOpt:  m.TmpfsOpt,
		CacheOpt:  m.CacheOpt,
		SecretOpt: m.SecretOpt,
		SSHOpt:    m.SSHOpt,
	}
	if m.Ref == nil {
		return msg, nil
	}
	if m.ResultID != "" {
		return nil, errors.New("a reference and a result id were given")
	}
	ref, err := encodeReference(m.Ref)
	if err != nil {
		return nil, err
	}
	msg.ResultID = ref.Id
	return msg, nil
}

func newID() string { return strings.ToLower(rand.Text()) }

// Release implements Container.
func (c *container) Release(ctx context.Context) error {
	_, err := c.bridge.ReleaseContainer(ctx, &gatewaypb.ReleaseContainerRequest{ContainerID: c.id})
	return err
}

// ReadFile implements Container.
func (c *container) ReadFile(ctx context.Context, mount int, req ReadRequest) ([]byte, error) {
	msg := encodeRead(c.id, req)
	msg.MountIndex = int32(mount)
	resp, err := c.bridge.ReadFileContainer(ctx, msg)
	if err != nil {
		return nil, err
	}
	return resp.GetData(), nil
}

// ReadDir implements Container.
func (c *container) ReadDir(ctx context.Context, mount int, req ReadDirRequest) ([]*fstypes.Stat, error) {
	resp, err := c.bridge.ReadDirContainer(ctx, &gatewaypb.ReadDirRequest{
		Ref: c.id, DirPath: req.Path, IncludePattern: req.IncludePattern, MountIndex: int32(mount),
	})
	if err != nil {
		return nil, err
	}
	return resp.GetEntries(), nil
}

// StatFile implements Container.
func (c *container) StatFile(ctx context.Context, mount int, path string) (*fstypes.Stat, error) {
	resp, err := c.bridge.StatFileContainer(ctx, &gatewaypb.StatFileRequest{Ref: c.id, Path: path, MountIndex: int32(mount)})
	if err != nil {
		return nil, err
	}
	return resp.GetStat(), nil
}

// Start implements Container. The process is killed when ctx ends.
func (c *container) Start(ctx context.Context, req StartRequest) (Process, error) {
	p := &process{
		id:      newID(),
		input:   req.Stdin,
		outputs: map[uint32]io.WriteCloser{},
		started: make(chan struct{}),
		done:    make(chan struct{}),
	}
	p.setOutput(fdStdout, req.Stdout)
	p.setOutput(fdStderr, req.Stderr)
	ctx, cancel := context.WithCancel(ctx)
	var err error
	if p.stream, err = c.bridge.ExecProcess(ctx); err == nil {
		init := p.message()
		init.Input = &gatewaypb.ExecMessage_Init{Init: c.initMessage(req)}
		err = p.send(init)
	}
	if err != nil {
		cancel()
		p.closeStreams()
		return nil, err
	}
	go func() {
		defer cancel()
		p.receive()
	}()
	select {
	case <-p.started:
	case <-p.done:
		select {
		case <-p.started:
			// It has run, and ended at once.
		default:
			if p.err != nil {
				return nil, p.err
			}
		}
	}
	if req.Stdin != nil {
		go p.sendInput(req.Stdin)
	}
	return p, nil
}

func (c *container) initMessage(req StartRequest) *gatewaypb.InitMessage {
	msg := &gatewaypb.InitMessage{
		ContainerID: c.id,
		Meta: &pb.Meta{
			Args:                      req.Args,
			Env:                       req.Env,
			Cwd:                       req.Cwd,
			User:                      req.User,
			RemoveMountStubsRecursive: req.RemoveMountStubsRecursive,
		},
		Tty:       req.Tty,
		Security:  req.SecurityMode,
		Secretenv: req.SecretEnv,
	}
	if req.Stdin != nil {
		msg.Fds = append(msg.Fds, fdStdin)
	}
	if req.Stdout != nil {
		msg.Fds = append(msg.Fds, fdStdout)
	}
	if req.Stderr != nil {
		msg.Fds = append(msg.Fds, fdStderr)
	}
	return msg
}

// process is a process of a container, with a stream of its own.
type process struct {
	id     string
	sendMu sync.Mutex
	stream grpc.BidiStreamingClient[gatewaypb.ExecMessage, gatewaypb.ExecMessage]
	input  io.ReadCloser // may be nil
	// outputs belong to the goroutine that receives.
	outputs map[uint32]io.WriteCloser
	started chan struct{}
	// done is closed once err is set for good.
	done chan struct{}
	err  error
}

func (p *process) setOutput(fd uint32, w io.WriteCloser) {
	if w != nil {
		p.outputs[fd] = w
	}
}

func (p *process) message() *gatewaypb.ExecMessage { return &gatewaypb.ExecMessage{ProcessID: p.id} }

func (p *process) send(msg *gatewaypb.ExecMessage) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	err := p.stream.Send(msg)
	if errors.Is(err, io.EOF) {
		// The stream has ended; what receives learns why.
		return errors.New("process has ended")
	}
	return err
}

// receive handles messages until the process is done or the stream ends.
func (p *process) receive() {
	defer close(p.done)
	defer p.closeStreams()
	running, exited := false, false
	for {
		msg, err := p.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if !exited {
				p.err = err
			}
			return
		}
		switch in := msg.GetInput().(type) {
		case *gatewaypb.ExecMessage_Started:
			if !running {
				running = true
				close(p.started)
			}
		case *gatewaypb.ExecMessage_File:
			p.write(in.File)
		case *gatewaypb.ExecMessage_Exit:
			p.err, exited = exitError(in.Exit), true
		case *gatewaypb.ExecMessage_Done:
			return
		}
	}
}

func (p *process) closeStreams() {
	for _, w := range p.outputs {
		w.Close()
	}
	if p.input != nil {
		p.input.Close()
	}
}

// write passes output on. A reader that has gone does not end the process.
func (p *process) write(msg *gatewaypb.FdMessage) {
	w, ok := p.outputs[msg.GetFd()]
	if !ok {
		return
	}
	if len(msg.GetData()) > 0 {
		if _, err := w.Write(msg.GetData()); err != nil {
			w.Close()
			delete(p.outputs, msg.GetFd())
			return
		}
	}
	if msg.GetEOF() {
		w.Close()
		delete(p.outputs, msg.GetFd())
	}
}

func exitError(msg *gatewaypb.ExitMessage) error {
	err := status.FromProto(msg.GetError())
	if msg.GetCode() == 0 {
		return err
	}
	var exit *status.ExitError
	if errors.As(err, &exit) {
		return err
	}
	return &status.ExitError{Code: msg.GetCode(), Err: err}
}

func (p *process) sendInput(r io.ReadCloser) {
	buf := make([]byte, chunkSize)
	for {
		n, err := r.Read(buf)
		msg := p.message()
		msg.Input = &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: fdStdin, Data: buf[:n], EOF: err != nil}}
		if p.send(msg) != nil || err != nil {
			return
		}
	}
}

// Wait implements Process.
func (p *process) Wait() error {
	<-p.done
	return p.err
}

// Resize implements Process.
func (p *process) Resize(_ context.Context, size WindowSize) error {
	msg := p.message()
	msg.Input = &gatewaypb.ExecMessage_Resize{Resize: &gatewaypb.ResizeMessage{Rows: size.Rows, Cols: size.Cols}}
	return p.send(msg)
}

// Signal implements Process.
func (p *process) Signal(_ context.Context, sig syscall.Signal) error {
	name := signalName(sig)
	if name == "" {
		return fmt.Errorf("unknown signal %d", sig)
	}
	msg := p.message()
	msg.Input = &gatewaypb.ExecMessage_Signal{Signal: &gatewaypb.SignalMessage{Name: name}}
	return p.send(msg)
}

// signalName returns the name without SIG, the first in order where there are several.
func signalName(sig syscall.Signal) string {
	found := ""
	for name, s := range signal.SignalMap {
		if s == sig && (found == "" || name < found) {
			found = name
		}
	}
	return found
}
