package dockerfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// epochContext is the value that stands for the time of the main context.
const epochContext = "context"

// epochs remembers the times of remote sources for the platforms of a build.
type epochs struct {
	mu    sync.Mutex
	times map[string]*time.Time
}

// epoch returns the time of everything that is made; nil if there is none. It is given as a
// number of seconds, or as something remote whose time it is: the main context, or what a stage
// adds.
func (b *build) epoch(ctx context.Context, l *lower.Build) (*time.Time, error) {
	value := l.Epoch()
	if value == "" {
		return nil, nil
	}
	if sec, err := strconv.ParseInt(value, 10, 64); err == nil {
		t := time.Unix(sec, 0).UTC()
		return &t, nil
	}
	url, known, err := l.EpochSource(value)
	if err != nil {
		return nil, err
	}
	switch {
	case known:
	case value == epochContext:
		url = gitContext(b.opts.context)
	default:
		return nil, fmt.Errorf("invalid %s: %s", lower.EpochArg, value)
	}
	b.epochs.mu.Lock()
	defer b.epochs.mu.Unlock()
	if t, ok := b.epochs.times[url]; ok {
		return t, nil
	}
	t, err := b.remoteTime(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve %s %s: %w", lower.EpochArg, value, err)
	}
	if b.epochs.times == nil {
		b.epochs.times = map[string]*time.Time{}
	}
	b.epochs.times[url] = t
	return t, nil
}

// remoteTime returns the time of what is at a url: when the commit of a repository was made, when
// a file was last changed. It is nil for a directory of the client, and if the server does not
// tell and the file is no archive.
func (b *build) remoteTime(ctx context.Context, url string) (*time.Time, error) {
	switch {
	case lower.IsGitURL(url):
		g, err := lower.ParseGitURL(url)
		if err != nil {
			return nil, err
		}
		meta, err := b.sourceMeta(ctx, g.State(), url)
		if err != nil {
			return nil, err
		}
		return commitTime(meta.Git.GetCommitObject())
	case strings.HasPrefix(url, "http://"), strings.HasPrefix(url, "https://"):
		meta, err := b.sourceMeta(ctx, llb.HTTP(url, llb.Filename(remoteFile)), url)
		if err != nil {
			return nil, err
		}
		if stamp := meta.HTTP.GetLastModified(); stamp != nil {
			t := stamp.AsTime()
			return &t, nil
		}
		return b.archiveTime(ctx, url)
	}
	return nil, nil
}

// sourceMeta resolves the source that a tree is.
func (b *build) sourceMeta(ctx context.Context, tree llb.State, url string) (*gateway.SourceMeta, error) {
	def, err := tree.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	var op pb.Op
	if err := proto.Unmarshal(def.GetDef()[0], &op); err != nil {
		return nil, err
	}
	return b.client.ResolveSourceMeta(ctx, op.GetSource(), gateway.ResolveOpt{
		LogName: "[internal] load time of " + giturl.Redact(url), GitObject: true,
	})
}

// commitTime reads when a commit was made from its object as git stores it (gitformat-signature
// and git-cat-file: header lines up to an empty one; "committer name <mail> seconds zone").
func commitTime(object []byte) (*time.Time, error) {
	header, _, _ := bytes.Cut(object, []byte("\n\n"))
	for line := range bytes.Lines(header) {
		who, ok := bytes.CutPrefix(line, []byte("committer "))
		if !ok {
			continue
		}
		fields := bytes.Fields(who[bytes.LastIndexByte(who, '>')+1:])
		if len(fields) == 0 {
			break
		}
		sec, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("invalid time of the commit: %q", fields[0])
		}
		t := time.Unix(sec, 0).UTC()
		return &t, nil
	}
	return nil, errors.New("the commit has no time")
}

// archiveTime returns the time of the newest file in an archive; nil for any other file.
func (b *build) archiveTime(ctx context.Context, url string) (*time.Time, error) {
	file := llb.HTTP(url, llb.Filename(remoteFile), internalName("load time of "+giturl.Redact(url)))
	ref, err := b.solveTree(ctx, file)
	if err != nil {
		return nil, err
	}
	head, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: remoteFile, Range: &gateway.FileRange{Length: archiveHead}})
	if err != nil || !isArchive(head) {
		return nil, err
	}
	tree, err := b.solveTree(ctx, unpack(file))
	if err != nil {
		return nil, err
	}
	return newest(ctx, tree)
}

// newest walks a tree and returns the time of the file that was changed last; nil without files.
func newest(ctx context.Context, tree gateway.Reference) (*time.Time, error) {
	var last *time.Time
	for dirs := []string{"/"}; len(dirs) > 0; {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		entries, err := tree.ReadDir(ctx, gateway.ReadDirRequest{Path: dir})
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if fs.FileMode(e.GetMode()).IsDir() {
				dirs = append(dirs, path.Join(dir, e.GetPath()))
				continue
			}
			if t := time.Unix(0, e.GetModTime()).UTC().Truncate(time.Second); last == nil || t.After(*last) {
				last = &t
			}
		}
	}
	return last, nil
}
