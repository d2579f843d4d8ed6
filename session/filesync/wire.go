package filesync

import (
	"io/fs"
	"net/url"
	"strings"

	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// Keys of request metadata.
const (
	keyDirName         = "dir-name"
	keyIncludePatterns = "include-patterns"
	keyExcludePatterns = "exclude-patterns"
	keyFollowPaths     = "followpaths"
	suffixEncoded      = "-encoded"

	keyExporterID    = "buildkit-attachable-exporter-id"
	keyMultiPlatform = "buildkit-exporter-multi-platform"
	prefixExporterMD = "exporter-md-"

	// keyChangeToken asks the client for change tokens. Clients that do not know it ignore it.
	keyChangeToken = "openbuildkit-change-token"
)

const (
	// plainChunk is the most data in one packet that every peer is known to take.
	plainChunk = 32 << 10
	// largeChunk is used with peers that ask for change tokens: those are of our kind.
	largeChunk = 256 << 10
)

// hasContent reports whether the content of an entry may be asked for.
func hasContent(st *types.Stat) bool { return modeOf(st)&fs.ModeType == 0 }

// A change token is an additional field of a Stat. It identifies a state of a file better than
// its size and modification time do; empty, it says that the file has changed so recently that
// its state can't be told from the next one. Peers that do not know the field skip it.
const tokenField protowire.Number = 58_110

// setToken adds a token to st; nil removes it.
func setToken(st *types.Stat, token []byte) {
	if token == nil {
		if len(st.ProtoReflect().GetUnknown()) > 0 {
			st.ProtoReflect().SetUnknown(nil)
		}
		return
	}
	b := protowire.AppendTag(nil, tokenField, protowire.BytesType)
	st.ProtoReflect().SetUnknown(protowire.AppendBytes(b, token))
}

// tokenOf returns the token in st; nil if there is none.
func tokenOf(st *types.Stat) []byte {
	b := st.ProtoReflect().GetUnknown()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == tokenField && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil
			}
			return append([]byte{}, v...)
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}

// setValues puts values under a key of md. Values that are not printable ASCII are escaped, all
// of the key together, with a second key to say so.
func setValues(md metadata.MD, key string, values []string) {
	if len(values) == 0 {
		return
	}
	escape := false
	for _, v := range values {
		escape = escape || !printable(v)
	}
	if !escape {
		md[key] = values
		return
	}
	escaped := make([]string, len(values))
	for i, v := range values {
		escaped[i] = url.QueryEscape(v)
	}
	md[key] = escaped
	md[key+suffixEncoded] = []string{"1"}
}

// values is the inverse of setValues.
func values(md metadata.MD, key string) ([]string, error) {
	in := md.Get(key)
	if flag := md.Get(key + suffixEncoded); len(flag) == 0 || flag[0] != "1" {
		return in, nil
	}
	out := make([]string, len(in))
	for i, v := range in {
		var err error
		if out[i], err = url.QueryUnescape(v); err != nil {
			return nil, protocolErrorf("%s: %v", key, err)
		}
	}
	return out, nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
