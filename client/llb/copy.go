package llb

import (
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// CopyOption changes Copy.
type CopyOption interface{ applyCopy(*copyOp) }

type copyOp struct {
	source        State
	src, dest     string
	mode          *uint32
	modeText      string
	follow        bool
	dirContents   bool
	unpack        bool
	createDest    bool
	wildcard      bool
	emptyWildcard bool
	include       []string
	exclude       []string
	required      []string
	alwaysReplace bool
	info          fileInfo
}

type copyOpt func(*copyOp)

func (o copyOpt) applyCopy(a *copyOp) { o(a) }

// Copy copies src of a tree to dest. A slash at the end of dest makes it a directory to copy
// into.
func Copy(source State, src, dest string, opts ...CopyOption) *FileAction {
	return (*FileAction)(nil).Copy(source, src, dest, opts...)
}

// Copy copies src of a tree to dest after what f does.
func (f *FileAction) Copy(source State, src, dest string, opts ...CopyOption) *FileAction {
	a := &copyOp{source: source, src: src, dest: dest}
	for _, o := range opts {
		o.applyCopy(a)
	}
	return &FileAction{f, a}
}

// CopyMode sets the permissions of all copied files and directories, as Unix mode bits up to
// 07777.
func CopyMode(mode uint32) CopyOption { return copyOpt(func(a *copyOp) { a.mode = &mode }) }

// CopyModeText changes the permissions of all copied files and directories as chmod does, such
// as "u=rwX,go=rX".
func CopyModeText(mode string) CopyOption { return copyOpt(func(a *copyOp) { a.modeText = mode }) }

// FollowSymlinks copies what a link at src names rather than the link.
func FollowSymlinks() CopyOption { return copyOpt(func(a *copyOp) { a.follow = true }) }

// CopyDirContents copies what is in a directory rather than the directory.
func CopyDirContents() CopyOption { return copyOpt(func(a *copyOp) { a.dirContents = true }) }

// UnpackArchive unpacks src if it is a tar archive, compressed or not.
func UnpackArchive() CopyOption { return copyOpt(func(a *copyOp) { a.unpack = true }) }

// CreateDestPath makes missing parents of dest.
func CreateDestPath() CopyOption { return copyOpt(func(a *copyOp) { a.createDest = true }) }

// AllowEmptyWildcard makes a pattern that matches nothing no error.
func AllowEmptyWildcard() CopyOption { return copyOpt(func(a *copyOp) { a.emptyWildcard = true }) }

// CopyInclude copies only what matches one of the patterns, relative to src.
func CopyInclude(patterns ...string) CopyOption {
	return copyOpt(func(a *copyOp) { a.include = appendCopy(a.include, patterns...) })
}

// CopyExclude leaves out what matches one of the patterns, relative to src.
func CopyExclude(patterns ...string) CopyOption {
	return copyOpt(func(a *copyOp) { a.exclude = appendCopy(a.exclude, patterns...) })
}

// CopyRequire fails unless all the paths exist in the tree that is copied from.
func CopyRequire(paths ...string) CopyOption {
	return copyOpt(func(a *copyOp) { a.required = appendCopy(a.required, paths...) })
}

// AlwaysReplaceExistingDestPaths replaces a file where a directory is copied to, and the other
// way round.
func AlwaysReplaceExistingDestPaths() CopyOption {
	return copyOpt(func(a *copyOp) { a.alwaysReplace = true })
}

// AllowWildcard takes the last elements of a path as a pattern.
func AllowWildcard() interface {
	CopyOption
	RmOption
} {
	return wildcard{}
}

type wildcard struct{}

func (wildcard) applyCopy(a *copyOp) { a.wildcard = true }
func (wildcard) applyRm(a *rm)       { a.wildcard = true }

func (a *copyOp) fill(m *pb.FileAction, dir string, base int64) []string {
	msg := &pb.FileActionCopy{
		Src:                              keepSlash(a.src, absolute("/", a.src)),
		Dest:                             keepSlash(a.dest, absolute(dir, a.dest)),
		Owner:                            a.info.owner.message(base),
		Mode:                             -1,
		ModeStr:                          a.modeText,
		FollowSymlink:                    a.follow,
		DirCopyContents:                  a.dirContents,
		AttemptUnpackDockerCompatibility: a.unpack,
		CreateDestPath:                   a.createDest,
		AllowWildcard:                    a.wildcard,
		AllowEmptyWildcard:               a.emptyWildcard,
		IncludePatterns:                  a.include,
		ExcludePatterns:                  a.exclude,
		RequiredPaths:                    a.required,
		AlwaysReplaceExistingDestPaths:   a.alwaysReplace,
		Timestamp:                        a.info.timestamp(),
	}
	if a.mode != nil {
		msg.Mode = int32(*a.mode)
	}
	m.Action = &pb.FileAction_Copy{Copy: msg}
	var caps []string
	if len(a.include)+len(a.exclude) > 0 {
		caps = append(caps, pb.CapFileCopyPatterns)
	}
	if len(a.required) > 0 {
		caps = append(caps, pb.CapFileCopyRequiredPaths)
	}
	if a.alwaysReplace {
		caps = append(caps, pb.CapFileCopyAlwaysReplace)
	}
	return caps
}

// keepSlash returns clean, with the slash or slash and dot that p ends in, which says that a
// directory is meant.
func keepSlash(p, clean string) string {
	if clean == "/" {
		return clean
	}
	switch {
	case strings.HasSuffix(p, "/"):
		return clean + "/"
	case strings.HasSuffix(p, "/."), p == ".":
		return clean + "/."
	}
	return clean
}
