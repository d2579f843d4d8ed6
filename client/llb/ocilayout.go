package llb

import (
	"io/fs"
	"strconv"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// OCILayoutOption changes how an image of an OCI layout is read.
type OCILayoutOption interface {
	applyOCILayout(*ociLayoutInfo)
}

type ociLayoutInfo struct{ sourceInfo }

type ociLayoutOpt func(*ociLayoutInfo)

func (o ociLayoutOpt) applyOCILayout(s *ociLayoutInfo) { o(s) }

// OCILayout reads the file tree of an image in an OCI layout that the client offers. The
// reference, "name[:tag]@digest", names the layout unless OCIStore does.
func OCILayout(ref string, opts ...OCILayoutOption) State {
	var info ociLayoutInfo
	for _, o := range opts {
		o.applyOCILayout(&info)
	}
	info.need(pb.CapSourceOCILayout)
	return (&sourceOp{identifier: pb.SchemeOCILayout + ref, info: info.sourceInfo, perPlatform: true}).state()
}

// OCIStore says which layout of which session is read. Either may be empty.
func OCIStore(sessionID, storeID string) interface {
	OCILayoutOption
	BlobOption
} {
	return ociStore{sessionID, storeID}
}

type ociStore struct{ sessionID, storeID string }

func (o ociStore) applyOCILayout(s *ociLayoutInfo) { o.applyBlob(&s.sourceInfo) }

func (o ociStore) applyBlob(s *sourceInfo) {
	if o.sessionID != "" {
		s.set(pb.AttrOCISession, o.sessionID, "")
	}
	if o.storeID != "" {
		s.set(pb.AttrOCIStore, o.storeID, "")
	}
}

// OCILayerLimit reads only the first n layers. n is positive.
func OCILayerLimit(n int) OCILayoutOption {
	return ociLayoutOpt(func(s *ociLayoutInfo) {
		s.set(pb.AttrOCILayerLimit, strconv.Itoa(n), pb.CapSourceImageLayerLimit)
	})
}

// BlobOption changes how a single blob is read.
type BlobOption interface {
	applyBlob(*sourceInfo)
}

// ImageBlob reads one blob of a registry, "name@digest", as a tree of one file.
func ImageBlob(ref string, opts ...BlobOption) State {
	return blob(pb.SchemeImageBlob+ref, opts)
}

// OCILayoutBlob reads one blob of an OCI layout that the client offers, "name@digest", as a tree
// of one file.
func OCILayoutBlob(ref string, opts ...BlobOption) State {
	return blob(pb.SchemeOCILayoutBlob+ref, opts)
}

func blob(identifier string, opts []BlobOption) State {
	var info sourceInfo
	for _, o := range opts {
		o.applyBlob(&info)
	}
	info.need(pb.CapSourceImageBlob)
	return (&sourceOp{identifier: identifier, info: info}).state()
}

// FileOption says how the one file of an HTTP source or a blob is made.
type FileOption interface {
	HTTPOption
	BlobOption
}

type fileOpt func(*sourceInfo)

func (o fileOpt) applyHTTP(s *sourceInfo) { o(s) }
func (o fileOpt) applyBlob(s *sourceInfo) { o(s) }

// Filename sets the name of the file.
func Filename(name string) FileOption {
	return fileOpt(func(s *sourceInfo) { s.set(pb.AttrHTTPFilename, name, "") })
}

// Chmod sets the permissions of the file.
func Chmod(perm fs.FileMode) FileOption {
	return fileOpt(func(s *sourceInfo) {
		s.set(pb.AttrHTTPPerm, "0"+strconv.FormatUint(uint64(perm.Perm()), 8), pb.CapSourceHTTPPerm)
	})
}

// Chown sets the owner of the file.
func Chown(uid, gid int) FileOption {
	return fileOpt(func(s *sourceInfo) {
		s.set(pb.AttrHTTPUID, strconv.Itoa(uid), pb.CapSourceHTTPUIDGID)
		s.set(pb.AttrHTTPGID, strconv.Itoa(gid), pb.CapSourceHTTPUIDGID)
	})
}
