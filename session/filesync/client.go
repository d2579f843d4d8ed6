package filesync

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	filesyncpb "github.com/openbuildkit/buildkit/api/session/filesync"
	"github.com/openbuildkit/buildkit/api/status"
)

// Provider is the service that lets a daemon read directories of the client.
type Provider struct {
	filesyncpb.UnimplementedFileSyncServer
	dirs map[string]fsutil.FS
}

// NewProvider returns a service that offers directories by name, such as those of NewFS. All
// entries are sent as owned by user and group 0.
func NewProvider(dirs map[string]fsutil.FS) *Provider { return &Provider{dirs: dirs} }

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) {
	filesyncpb.RegisterFileSyncServer(srv, p)
	srv.RegisterService(&batchSync, p)
}

// DiffCopy sends a directory.
func (p *Provider) DiffCopy(stream grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
	return p.send(single{stream})
}

func (p *Provider) diffCopyBatches(stream grpc.ServerStream) error { return p.send(batched{stream}) }

func (p *Provider) send(stream packetStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	name, err := values(md, keyDirName)
	if err != nil {
		return err
	}
	if len(name) == 0 {
		name = []string{""}
	}
	base, ok := p.dirs[name[0]]
	if !ok {
		return status.New(codes.NotFound, fmt.Sprintf("no access allowed to dir %q", name[0]))
	}
	fs, err := filtered(base, md)
	if err != nil {
		return err
	}
	opt := sendOpt{open: base.Open, mapStat: ownedByRoot}
	if len(md.Get(keyChangeToken)) > 0 {
		opt.tokens, opt.chunk = true, largeChunk
	}
	return newSender(stream, fs, opt).run(stream.Context())
}

// filtered returns what the patterns of a call leave of a directory.
func filtered(base fsutil.FS, md metadata.MD) (fsutil.FS, error) {
	var filter fsutil.FilterOpt
	patterns := 0
	for key, dst := range map[string]*[]string{
		keyIncludePatterns: &filter.IncludePatterns,
		keyExcludePatterns: &filter.ExcludePatterns,
		keyFollowPaths:     &filter.FollowPaths,
	} {
		var err error
		if *dst, err = values(md, key); err != nil {
			return nil, err
		}
		patterns += len(*dst)
	}
	if patterns == 0 {
		return base, nil
	}
	return fsutil.NewFilterFS(base, &filter)
}

func ownedByRoot(st *types.Stat) { st.Uid, st.Gid = 0, 0 }

// Output is where one exporter's output goes. Either Dir or Open is set.
type Output struct {
	// Dir is a directory, which must exist. Entries in it are replaced by those of the output,
	// and owned by the user of the process.
	Dir string
	// Delete removes from Dir what the output does not have.
	Delete bool
	// Open opens a file for the output, given the exporter's metadata. It may return nil, or an
	// error of the kind AlreadyExists, if the content is there already. The file is closed when
	// all has come, and also when the transfer fails; in that case, if it has a method
	// CloseWithError(error) error, that is called instead of Close.
	Open func(meta map[string]string) (io.WriteCloser, error)
}

// Target is the service that takes the outputs of a build.
type Target struct {
	filesyncpb.UnimplementedFileSendServer

	mu      sync.Mutex
	outputs map[int]Output
}

// NewTarget returns a service for outputs by the index of their exporter.
func NewTarget(outputs map[int]Output) *Target {
	t := &Target{outputs: map[int]Output{}}
	maps.Copy(t.outputs, outputs)
	return t
}

// Add takes the output of one more exporter.
func (t *Target) Add(id int, output Output) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outputs[id] = output
}

// Register adds the service to a server.
func (t *Target) Register(srv *grpc.Server) {
	filesyncpb.RegisterFileSendServer(srv, t)
	srv.RegisterService(&batchSend, t)
}

// DiffCopy takes one output.
func (t *Target) DiffCopy(stream grpc.BidiStreamingServer[filesyncpb.BytesMessage, filesyncpb.BytesMessage]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	out, err := t.output(md)
	switch {
	case err != nil:
		return err
	case out.Open != nil:
		return receiveFile(stream, out, md)
	}
	return receiveDir(single{stream}, out, md)
}

func (t *Target) diffCopyBatches(stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	out, err := t.output(md)
	if err != nil {
		return err
	}
	if out.Dir == "" {
		return status.New(codes.NotFound, "the output is no directory")
	}
	return receiveDir(batched{stream}, out, md)
}

// output returns the output that a call is for.
func (t *Target) output(md metadata.MD) (Output, error) {
	id := 0
	if v := md.Get(keyExporterID); len(v) > 0 {
		var err error
		if id, err = strconv.Atoi(v[0]); err != nil {
			return Output{}, status.New(codes.InvalidArgument, fmt.Sprintf("invalid exporter id %q", v[0]))
		}
	}
	t.mu.Lock()
	out, ok := t.outputs[id]
	t.mu.Unlock()
	if !ok || out.Open == nil && out.Dir == "" {
		return Output{}, status.New(codes.NotFound, fmt.Sprintf("no output for exporter %d", id))
	}
	return out, nil
}

func receiveDir(stream packetStream, out Output, md metadata.MD) error {
	if v := md.Get(keyMultiPlatform); out.Delete && (len(v) == 0 || v[0] != "1") {
		return status.New(codes.FailedPrecondition, "refusing to delete from "+out.Dir+": the daemon does not send all platforms in one transfer")
	}
	dest, err := openTree(out.Dir)
	if err != nil {
		return err
	}
	r, err := newReceiver(stream, dest, receiveOpt{differ: DiffNone, merge: !out.Delete, mapStat: ownedByUser()})
	if err != nil {
		return errors.Join(err, dest.Close())
	}
	err = r.run(stream.Context())
	// What waits for the stream ends when this call has returned.
	go func() {
		r.wait()
		dest.Close()
	}()
	return err
}

// ownedByUser gives everything to the user of the process, where the system has such a thing.
func ownedByUser() func(string, *types.Stat) bool {
	uid, gid := os.Getuid(), os.Getgid()
	return func(_ string, st *types.Stat) bool {
		if uid >= 0 && gid >= 0 {
			st.Uid, st.Gid = uint32(uid), uint32(gid)
		}
		return true
	}
}

func receiveFile(stream grpc.BidiStreamingServer[filesyncpb.BytesMessage, filesyncpb.BytesMessage], out Output, md metadata.MD) error {
	meta := map[string]string{}
	for k, v := range md {
		if name, ok := strings.CutPrefix(k, prefixExporterMD); ok && len(v) > 0 {
			meta[name] = v[0]
		}
	}
	w, err := out.Open(meta)
	if err != nil {
		return err
	}
	if w == nil {
		return status.New(codes.AlreadyExists, "the output exists already")
	}
	err = copyChunks(w, stream)
	if aborter, ok := w.(interface{ CloseWithError(error) error }); ok && err != nil {
		_ = aborter.CloseWithError(err) // err is the reason of the failure
		return err
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}

func copyChunks(w io.Writer, stream grpc.BidiStreamingServer[filesyncpb.BytesMessage, filesyncpb.BytesMessage]) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(m.GetData()); err != nil {
			return err
		}
	}
}
