package filesync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	filesyncpb "github.com/openbuildkit/buildkit/api/session/filesync"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// Receive brings opt.Dest up to date with a directory of the client. It returns when all is there.
// A client that does not have the directory gives an error of the kind NotFound.
func Receive(ctx context.Context, c *session.Caller, opt ReceiveOpt) error {
	if !c.Supports(filesyncpb.FileSync_DiffCopy_FullMethodName) {
		return status.New(codes.NotFound, "no local sources enabled")
	}
	md := metadata.MD{keyChangeToken: {"1"}}
	setValues(md, keyDirName, []string{opt.Name})
	setValues(md, keyIncludePatterns, opt.IncludePatterns)
	setValues(md, keyExcludePatterns, opt.ExcludePatterns)
	setValues(md, keyFollowPaths, opt.FollowPaths)

	dest, err := openTree(opt.Dest)
	if err != nil {
		return err
	}
	defer dest.Close()
	if opt.Changing != nil {
		dest.changing = sync.OnceValue(opt.Changing)
	}
	ropt, err := opt.receiver()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	defer cancel()
	stream, err := openFileSync(ctx, c)
	if err != nil {
		return err
	}
	r, err := newReceiver(stream, dest, ropt)
	if err != nil {
		return err
	}
	err = r.run(ctx)
	cancel()
	r.wait()
	return err
}

func openFileSync(ctx context.Context, c *session.Caller) (packetStream, error) {
	stream, err := openBatches(ctx, c, &batchSync)
	if err != nil || stream != nil {
		return batched{stream}, err
	}
	plain, err := filesyncpb.NewFileSyncClient(c.Conn()).DiffCopy(ctx)
	return single{plain}, err
}

// receiver returns the options of the engine.
func (opt ReceiveOpt) receiver() (receiveOpt, error) {
	out := receiveOpt{
		differ:    opt.Differ,
		prev:      opt.PrevState,
		strangers: opt.Strangers,
		next:      opt.NextState,
		mapStat:   opt.Map,
		hasher:    opt.Hasher,
		notify:    opt.Notify,
		progress:  opt.Progress,
	}
	if !opt.MetadataOnly {
		return out, nil
	}
	// What is in the destination is chosen by patterns, so a state tells nothing of it.
	out.prev, out.next = nil, nil
	m, err := patternmatcher.New(opt.MetadataOnlyExcept)
	if err != nil {
		return out, fmt.Errorf("patterns of the transfer of metadata: %w", err)
	}
	out.metadata = m.MatchesOrParentMatches
	return out, nil
}

// SendOpt says where Send goes.
type SendOpt struct {
	// ExporterID is the index of the exporter in the request.
	ExporterID int
	// AllPlatforms says that the tree is the whole of the output; only then a client may remove
	// what is not in it.
	AllPlatforms bool
	Progress     Progress
}

// Send writes a tree to the output directory of a client. It returns when the client has all.
func Send(ctx context.Context, c *session.Caller, fs fsutil.FS, opt SendOpt) error {
	md := metadata.MD{keyExporterID: {strconv.Itoa(opt.ExporterID)}}
	if opt.AllPlatforms {
		md[keyMultiPlatform] = []string{"1"}
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	defer cancel()
	send := sendOpt{progress: opt.Progress}
	stream, err := openBatches(ctx, c, &batchSend)
	if err != nil {
		return err
	}
	if stream != nil {
		send.chunk = largeChunk
		return sendTo(ctx, cancel, newSender(batched{stream}, fs, send), func() error { return closeStream(stream, &session.Frame{}) })
	}
	plain, err := openFileSend(ctx, c)
	if err != nil {
		return err
	}
	return sendTo(ctx, cancel, newSender(single{plain}, fs, send), func() error { return finishStream(plain) })
}

// sendTo runs a sender and ends its stream.
func sendTo(ctx context.Context, cancel func(), s *sender, finish func() error) error {
	err := s.run(ctx)
	if err == nil {
		err = finish()
	}
	cancel()
	s.wait()
	return err
}

func openFileSend(ctx context.Context, c *session.Caller) (grpc.BidiStreamingClient[filesyncpb.BytesMessage, filesyncpb.BytesMessage], error) {
	if !c.Supports(filesyncpb.FileSend_DiffCopy_FullMethodName) {
		return nil, status.New(codes.Unimplemented, "the client takes no output")
	}
	return filesyncpb.NewFileSendClient(c.Conn()).DiffCopy(ctx)
}

// finishStream says that nothing follows and waits for the other side's verdict.
func finishStream(stream grpc.ClientStream) error {
	return closeStream(stream, &filesyncpb.BytesMessage{})
}

// fileBuffer is how much is gathered before it is sent. Buffers of messages come in sizes up to
// 1 MiB, and are cleared as a whole: it is a little less.
const fileBuffer = 1<<20 - 1<<10

// maxFileChunk is the most data in one message of an output file.
const maxFileChunk = 3 << 20

// NewFileWriter opens the output file of a client. The metadata, such as the keys of the exporter
// response, goes to whoever opens the file there. Close waits until the client has all and must
// be called, also after an error; cancelling ctx makes the client discard the file. A client that
// has the content already gets nothing more: writes succeed without effect. One goroutine may
// use the writer.
func NewFileWriter(ctx context.Context, c *session.Caller, exporterID int, meta map[string]string) (io.WriteCloser, error) {
	md := metadata.MD{keyExporterID: {strconv.Itoa(exporterID)}}
	for k, v := range meta {
		if printable(v) {
			md[strings.ToLower(prefixExporterMD+k)] = []string{v}
		}
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	stream, err := openFileSend(ctx, c)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &fileWriter{chunks: &chunkWriter{stream: stream}, cancel: cancel}
	w.buf = bufio.NewWriterSize(w.chunks, fileBuffer)
	return w, nil
}

// fileWriter gathers small writes.
type fileWriter struct {
	chunks *chunkWriter
	buf    *bufio.Writer
	cancel func()
	close  sync.Once
	err    error
}

func (w *fileWriter) Write(p []byte) (int, error) { return w.buf.Write(p) }

func (w *fileWriter) Close() error {
	w.close.Do(func() {
		defer w.cancel()
		w.err = w.buf.Flush()
		if w.err == nil {
			w.err = w.chunks.finish()
		}
	})
	return w.err
}

// chunkWriter sends what is written as messages.
type chunkWriter struct {
	stream grpc.BidiStreamingClient[filesyncpb.BytesMessage, filesyncpb.BytesMessage]
	// had says that the client has the content.
	had bool
}

func (w *chunkWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && !w.had {
		chunk := p[:min(len(p), maxFileChunk)]
		if err := w.stream.Send(&filesyncpb.BytesMessage{Data: chunk}); err != nil {
			if err := w.refused(err); err != nil {
				return n, err
			}
			break
		}
		n += len(chunk)
		p = p[len(chunk):]
	}
	return n + len(p), nil
}

// refused returns the reason that nothing can be sent, nil if nothing need be.
func (w *chunkWriter) refused(err error) error {
	if err == io.EOF {
		err = drain(w.stream, &filesyncpb.BytesMessage{})
	}
	if errdefs.IsAlreadyExists(err) {
		w.had = true
		return nil
	}
	if err == io.EOF {
		return errors.New("the client left before it had the whole file")
	}
	return err
}

func (w *chunkWriter) finish() error {
	if w.had {
		return nil
	}
	err := finishStream(w.stream)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}
