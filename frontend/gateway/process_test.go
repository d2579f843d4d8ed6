package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// fakeContainer runs Go functions as processes, found by the first argument.
type fakeContainer struct {
	fakeRef
	programs map[string]program

	life context.Context
	end  context.CancelFunc
	all  sync.WaitGroup
}

// program is a process: what it returns is how it ends.
type program func(ctx context.Context, p *fakeProcess) error

type fakeProcess struct {
	client.StartRequest
	signals chan syscall.Signal
	sizes   chan client.WindowSize
	done    chan struct{}
	err     error
}

func newFakeContainer(programs map[string]program) *fakeContainer {
	c := &fakeContainer{fakeRef: fakeRef{file: "a"}, programs: programs}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

func (c *fakeContainer) Start(ctx context.Context, req client.StartRequest) (client.Process, error) {
	run := c.programs[req.Args[0]]
	if run == nil {
		return nil, status.New(codes.NotFound, "no program "+req.Args[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &fakeProcess{StartRequest: req, signals: make(chan syscall.Signal), sizes: make(chan client.WindowSize), done: make(chan struct{})}
	c.all.Go(func() {
		defer cancel()
		defer context.AfterFunc(c.life, cancel)()
		defer close(p.done)
		p.err = run(ctx, p)
		for _, s := range []io.Closer{p.Stdin, p.Stdout, p.Stderr} {
			if s != nil {
				s.Close()
			}
		}
	})
	return p, nil
}

func (c *fakeContainer) Release(context.Context) error {
	c.end()
	c.all.Wait()
	return nil
}

func (c *fakeContainer) ReadFile(ctx context.Context, mount int, req client.ReadRequest) ([]byte, error) {
	return c.fakeRef.ReadFile(ctx, req)
}

func (c *fakeContainer) ReadDir(ctx context.Context, mount int, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	return c.fakeRef.ReadDir(ctx, req)
}

func (c *fakeContainer) StatFile(ctx context.Context, mount int, path string) (*fstypes.Stat, error) {
	return c.fakeRef.StatFile(ctx, path)
}

func (p *fakeProcess) Wait() error {
	<-p.done
	return p.err
}

func (p *fakeProcess) Resize(ctx context.Context, size client.WindowSize) error {
	select {
	case p.sizes <- size:
	case <-p.done:
	case <-ctx.Done():
	}
	return nil
}

func (p *fakeProcess) Signal(ctx context.Context, sig syscall.Signal) error {
	select {
	case p.signals <- sig:
	case <-p.done:
	case <-ctx.Done():
	}
	return nil
}

// cat copies its input to its output.
func cat(_ context.Context, p *fakeProcess) error {
	_, err := io.Copy(p.Stdout, p.Stdin)
	return err
}

// sleep does nothing until it is killed.
func sleep(ctx context.Context, _ *fakeProcess) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// flood writes without end.
func flood(_ context.Context, p *fakeProcess) error {
	for {
		if _, err := p.Stdout.Write(make([]byte, 32<<10)); err != nil {
			return err
		}
	}
}

var programs = map[string]program{"cat": cat, "sleep": sleep, "flood": flood}

// serveContainer serves a container named c with a tree at / and one that is no tree.
func serveContainer(t *testing.T, ctr client.Container) gatewaypb.LLBBridgeClient {
	t.Helper()
	bridge := solved(&client.Result{Ref: &fakeRef{file: "a"}})
	bridge.container = func(client.NewContainerRequest) (client.Container, error) { return ctr, nil }
	c := serve(t, gateway.NewServer(bridge))
	_, err := c.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{ContainerID: "c", Mounts: []*pb.Mount{
		{Dest: "/"}, {Dest: "/tmp", MountType: pb.MountType_TMPFS},
	}})
	require.NoError(t, err)
	return c
}

func process(id string, in any) *gatewaypb.ExecMessage {
	msg := &gatewaypb.ExecMessage{ProcessID: id}
	switch in := in.(type) {
	case *gatewaypb.InitMessage:
		msg.Input = &gatewaypb.ExecMessage_Init{Init: in}
	case *gatewaypb.FdMessage:
		msg.Input = &gatewaypb.ExecMessage_File{File: in}
	case *gatewaypb.ResizeMessage:
		msg.Input = &gatewaypb.ExecMessage_Resize{Resize: in}
	case *gatewaypb.SignalMessage:
		msg.Input = &gatewaypb.ExecMessage_Signal{Signal: in}
	case *gatewaypb.DoneMessage:
		msg.Input = &gatewaypb.ExecMessage_Done{Done: in}
	}
	return msg
}

// command is the message that starts a program with input and output.
func command(args ...string) *gatewaypb.InitMessage {
	return &gatewaypb.InitMessage{ContainerID: "c", Meta: &pb.Meta{Args: args}, Fds: []uint32{0, 1, 2}}
}

// transcript returns what a stream says of a process until it is done, one word a message, and what
// it has put out.
func transcript(t *testing.T, stream gatewaypb.LLBBridge_ExecProcessClient, id string) (words []string, out string) {
	t.Helper()
	var text strings.Builder
	for {
		msg, err := stream.Recv()
		require.NoError(t, err)
		if msg.GetProcessID() != id {
			continue
		}
		word := ""
		switch in := msg.GetInput().(type) {
		case *gatewaypb.ExecMessage_Started:
			word = "started"
		case *gatewaypb.ExecMessage_File:
			text.Write(in.File.GetData())
			if word = fmt.Sprintf("data%d", in.File.GetFd()); in.File.GetEOF() {
				word = fmt.Sprintf("eof%d", in.File.GetFd())
			}
		case *gatewaypb.ExecMessage_Exit:
			word = fmt.Sprintf("exit%d", in.Exit.GetCode())
		case *gatewaypb.ExecMessage_Done:
			return append(words, "done"), text.String()
		}
		words = append(words, word)
	}
}

func TestAProcessTellsOfItselfInOrder(t *testing.T) {
	ctr := newFakeContainer(map[string]program{
		"cat": cat,
		"fail": func(_ context.Context, p *fakeProcess) error {
			fmt.Fprint(p.Stderr, "oops")
			return &status.ExitError{Code: 7}
		},
		"lost": func(context.Context, *fakeProcess) error { return errors.New("lost") },
	})
	c := serveContainer(t, ctr)
	for name, test := range map[string]struct {
		words []string
		out   string
	}{
		"cat":  {words: []string{"started", "data1", "eof1", "eof2", "exit0", "done"}, out: "hello"},
		"fail": {words: []string{"started", "data2", "eof1", "eof2", "exit7", "done"}, out: "oops"},
		"lost": {words: []string{"started", "eof1", "eof2", "exit255", "done"}},
	} {
		stream, err := c.ExecProcess(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(process("p", command(name))))
		require.NoError(t, stream.Send(process("p", &gatewaypb.FdMessage{Data: []byte("hello"), EOF: true})))
		words, out := transcript(t, stream, "p")
		require.Equal(t, test.words, words)
		require.Equal(t, test.out, out)
		// What comes after the end is no mistake: the frontend cannot have known.
		require.NoError(t, stream.Send(process("p", &gatewaypb.FdMessage{EOF: true})))
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
	}
}

func TestProcessesShareAStream(t *testing.T) {
	got := make(chan string, 2)
	c := serveContainer(t, newFakeContainer(map[string]program{"cat": cat, "wait": func(ctx context.Context, p *fakeProcess) error {
		// They come in any order.
		for range 2 {
			select {
			case size := <-p.sizes:
				got <- fmt.Sprintf("%dx%d", size.Rows, size.Cols)
			case sig := <-p.signals:
				got <- sig.String()
			}
		}
		return nil
	}}))
	stream, err := c.ExecProcess(t.Context())
	require.NoError(t, err)
	for _, msg := range []*gatewaypb.ExecMessage{
		process("a", command("cat")),
		process("b", command("wait")),
		process("a", &gatewaypb.FdMessage{Data: []byte("hello")}),
		process("b", &gatewaypb.ResizeMessage{Rows: 3, Cols: 4}),
		process("b", &gatewaypb.SignalMessage{Name: "TERM"}),
	} {
		require.NoError(t, stream.Send(msg))
	}
	require.ElementsMatch(t, []string{"3x4", "terminated"}, []string{<-got, <-got})
	// The end of the stream is the end of all input.
	require.NoError(t, stream.CloseSend())
	_, out := transcript(t, stream, "a")
	require.Equal(t, "hello", out)
	_, err = stream.Recv()
	for err == nil {
		_, err = stream.Recv()
	}
	require.ErrorIs(t, err, io.EOF)
}

func TestMessagesThatCannotBeDoneEndTheStream(t *testing.T) {
	long := strings.Repeat("x", 300)
	unknown := command("cat")
	unknown.ContainerID = "gone"
	fds := command("cat")
	fds.Fds = []uint32{7}
	secret := command("cat")
	secret.Meta.Args = nil
	quiet := command("sleep")
	quiet.Fds = nil
	for name, test := range map[string]struct {
		messages []*gatewaypb.ExecMessage
		code     codes.Code
		text     string
	}{
		"no id":                     {[]*gatewaypb.ExecMessage{process("", command("cat"))}, codes.InvalidArgument, "ProcessID required"},
		"a long id":                 {[]*gatewaypb.ExecMessage{process(long, command("cat"))}, codes.InvalidArgument, "ProcessID of 300 bytes is too long"},
		"nothing":                   {[]*gatewaypb.ExecMessage{{}}, codes.InvalidArgument, "ProcessID required"},
		"an unknown process":        {[]*gatewaypb.ExecMessage{process("p", &gatewaypb.FdMessage{})}, codes.NotFound, `IO for process "p" not found`},
		"an unknown container":      {[]*gatewaypb.ExecMessage{process("p", unknown)}, codes.NotFound, `container "gone" previously released or not created`},
		"a process that is there":   {[]*gatewaypb.ExecMessage{process("p", command("sleep")), process("p", command("sleep"))}, codes.AlreadyExists, "Process p already exists"},
		"an unknown signal":         {[]*gatewaypb.ExecMessage{process("p", command("sleep")), process("p", &gatewaypb.SignalMessage{Name: "NOSUCH"})}, codes.InvalidArgument, "Unknown signal NOSUCH"},
		"input for an output":       {[]*gatewaypb.ExecMessage{process("p", command("sleep")), process("p", &gatewaypb.FdMessage{Fd: 1})}, codes.OutOfRange, "fd 1 unavailable to write"},
		"input where there is none": {[]*gatewaypb.ExecMessage{process("p", quiet), process("p", &gatewaypb.FdMessage{})}, codes.OutOfRange, "fd 0 unavailable to write"},
		"a message of the daemon":   {[]*gatewaypb.ExecMessage{process("p", command("sleep")), process("p", &gatewaypb.DoneMessage{})}, codes.InvalidArgument, "process p: the message is none that a frontend sends"},
		"an empty message":          {[]*gatewaypb.ExecMessage{process("p", command("sleep")), process("p", nil)}, codes.InvalidArgument, "process p: the message is none that a frontend sends"},
		"an odd fd":                 {[]*gatewaypb.ExecMessage{process("p", fds)}, codes.InvalidArgument, "process p: fd 7 is none of 0, 1 and 2"},
		"no meta":                   {[]*gatewaypb.ExecMessage{process("p", &gatewaypb.InitMessage{ContainerID: "c"})}, codes.InvalidArgument, "process p has no meta"},
		"no args":                   {[]*gatewaypb.ExecMessage{process("p", secret)}, codes.InvalidArgument, "process p has no args"},
		"what does not start":       {[]*gatewaypb.ExecMessage{process("p", command("nosuch"))}, codes.NotFound, "no program nosuch"},
	} {
		t.Run(name, func(t *testing.T) {
			ctr := newFakeContainer(programs)
			c := serveContainer(t, ctr)
			stream, err := c.ExecProcess(t.Context())
			require.NoError(t, err)
			for _, msg := range test.messages {
				require.NoError(t, stream.Send(msg))
			}
			for err == nil {
				_, err = stream.Recv()
			}
			require.EqualError(t, err, test.text)
			require.Equal(t, test.code, status.Code(err))
			ctr.all.Wait() // nothing runs any more
		})
	}
}

// panics is a container whose Start panics.
type panics struct{ client.Container }

func (panics) Start(context.Context, client.StartRequest) (client.Process, error) { panic("oops") }

func TestAPanicEndsTheStreamAlone(t *testing.T) {
	c := serveContainer(t, panics{newFakeContainer(nil)})
	stream, err := c.ExecProcess(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(process("p", command("cat"))))
	_, err = stream.Recv()
	require.EqualError(t, err, "process: panic: oops")
	require.Equal(t, codes.Internal, status.Code(err))
	_, err = c.Ping(t.Context(), &gatewaypb.PingRequest{})
	require.NoError(t, err)
}

func TestAProcessThatReadsNothingHoldsUpNoSignals(t *testing.T) {
	c := serveContainer(t, newFakeContainer(map[string]program{"wait": func(_ context.Context, p *fakeProcess) error {
		return fmt.Errorf("got %v", <-p.signals)
	}}))
	stream, err := c.ExecProcess(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(process("p", command("wait"))))
	for range 30 {
		require.NoError(t, stream.Send(process("p", &gatewaypb.FdMessage{Data: make([]byte, 32<<10)})))
	}
	require.NoError(t, stream.Send(process("p", &gatewaypb.SignalMessage{Name: "SIGHUP"})))
	words, _ := transcript(t, stream, "p")
	require.Contains(t, words, "exit255")
}

func TestInputIsHeldBackWithinBounds(t *testing.T) {
	read := make(chan struct{})
	c := serveContainer(t, newFakeContainer(map[string]program{"late": func(ctx context.Context, p *fakeProcess) error {
		<-read
		return cat(ctx, p)
	}}))
	stream, err := c.ExecProcess(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(process("p", command("late"))))
	want := bytes.Repeat([]byte("0123456789abcdef"), 8<<16) // 8 MiB, more than is kept
	go func() {
		for chunk := want; len(chunk) > 0; chunk = chunk[32<<10:] {
			if stream.Send(process("p", &gatewaypb.FdMessage{Data: chunk[:32<<10], EOF: len(chunk) == 32<<10})) != nil {
				return
			}
		}
	}()
	close(read)
	_, out := transcript(t, stream, "p")
	require.Equal(t, digest.FromBytes(want), digest.FromString(out), "the input arrived whole and in order")
}

func TestAContainerIsReleasedThoughNobodyReadsItsOutput(t *testing.T) {
	ctr := newFakeContainer(programs)
	c := serveContainer(t, ctr)
	stream, err := c.ExecProcess(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(process("p", command("flood"))))
	msg, err := stream.Recv()
	require.NoError(t, err)
	require.NotNil(t, msg.GetStarted())
	_, err = c.ReleaseContainer(t.Context(), &gatewaypb.ReleaseContainerRequest{ContainerID: "c"})
	require.NoError(t, err)
	ctr.all.Wait()
	words, _ := transcript(t, stream, "p")
	require.Contains(t, words, "exit255")
	_, err = c.ReleaseContainer(t.Context(), &gatewaypb.ReleaseContainerRequest{ContainerID: "c"})
	require.EqualError(t, err, "container details for c not found")
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestTheEndOfTheFrontendKillsItsProcesses(t *testing.T) {
	ctr := newFakeContainer(programs)
	c := serveContainer(t, ctr)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.ExecProcess(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(process("p", command("sleep"))))
	_, err = stream.Recv()
	require.NoError(t, err)
	cancel()
	ctr.all.Wait()
}

func TestContainersAreKnownByTheIDsOfTheFrontend(t *testing.T) {
	var got client.NewContainerRequest
	ref := &fakeRef{file: "a"}
	bridge := solved(&client.Result{Ref: ref})
	bridge.container = func(req client.NewContainerRequest) (client.Container, error) {
		got = req
		if req.Hostname == "bad" {
			return nil, errors.New("bad name")
		}
		return newFakeContainer(nil), nil
	}
	c := serve(t, gateway.NewServer(bridge))
	solved, err := c.Solve(t.Context(), &gatewaypb.SolveRequest{})
	require.NoError(t, err)
	_, err = c.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{ContainerID: "c", Hostname: "bad"})
	require.EqualError(t, err, "bad name")
	_, err = c.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{
		ContainerID: "c", Hostname: "h", Network: pb.NetMode_NONE,
		ExtraHosts: []*pb.HostIP{{Host: "h", IP: "1.2.3.4"}},
		Mounts: []*pb.Mount{
			{Dest: "/", ResultID: solved.GetRef(), Selector: "/s", Readonly: true},
			{Dest: "/failed", ResultID: "other"},
		},
	})
	require.NoError(t, err, "the id was free again")
	require.Same(t, ref, got.Mounts[0].Ref)
	require.Equal(t, client.Mount{Dest: "/", Ref: ref, Selector: "/s", Readonly: true}, got.Mounts[0])
	require.Equal(t, client.Mount{Dest: "/failed", ResultID: "other"}, got.Mounts[1])
	require.Equal(t, "h", got.Hostname)
	require.Equal(t, pb.NetMode_NONE, got.NetMode)
	require.Equal(t, "1.2.3.4", got.ExtraHosts[0].IP)

	_, err = c.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{ContainerID: "c"})
	require.EqualError(t, err, "Container c already exists")
	require.Equal(t, codes.AlreadyExists, status.Code(err))
	_, err = c.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{})
	require.EqualError(t, err, "ContainerID required")
	srv := gateway.NewServer(bridge)
	_, err = srv.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{ContainerID: "c", Mounts: []*pb.Mount{nil}})
	require.EqualError(t, err, "invalid nil mount")
	_, err = srv.NewContainer(t.Context(), &gatewaypb.NewContainerRequest{ContainerID: "c", ExtraHosts: []*pb.HostIP{nil}})
	require.EqualError(t, err, "invalid nil extra host")
}

func TestFilesOfContainersAreRead(t *testing.T) {
	c := serveContainer(t, newFakeContainer(nil))
	data, err := c.ReadFileContainer(t.Context(), &gatewaypb.ReadFileRequest{Ref: "c", FilePath: "/f"})
	require.NoError(t, err)
	require.Equal(t, "a", string(data.GetData()))
	dir, err := c.ReadDirContainer(t.Context(), &gatewaypb.ReadDirRequest{Ref: "c", DirPath: "/d"})
	require.NoError(t, err)
	require.Equal(t, "/d,", dir.GetEntries()[0].GetPath())
	st, err := c.StatFileContainer(t.Context(), &gatewaypb.StatFileRequest{Ref: "c", Path: "/f"})
	require.NoError(t, err)
	require.Equal(t, "/f", st.GetStat().GetPath())
	for name, req := range map[string]*gatewaypb.ReadFileRequest{
		"container details for x@0 not found":  {Ref: "x"},
		"container details for c@1 not found":  {Ref: "c", MountIndex: 1},
		"container details for c@2 not found":  {Ref: "c", MountIndex: 2},
		"container details for c@-1 not found": {Ref: "c", MountIndex: -1},
	} {
		_, err := c.ReadFileContainer(t.Context(), req)
		require.EqualError(t, err, name)
		require.Equal(t, codes.NotFound, status.Code(err))
	}
}
