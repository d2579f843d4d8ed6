// Package redact takes credentials out of what a build tells of itself: of graphs and of the files
// that they were made of. What is kept or given away is redacted; what is executed is not.
//
// A credential is what a url has before its host, wherever that url stands, see giturl.Redact for text;
// headers of requests that are not known to hold none; and options of remote caches and exporters that
// are known to be one. Values of secrets never are in a graph.
// The functions return copies and take nil.
package redact

import (
	"encoding/base64"
	"regexp"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Hidden stands where a credential was that is no part of a url.
const Hidden = "xxxxx"

// plainHeaders are those of requests whose values are shown.
var plainHeaders = map[string]bool{
	pb.AttrHTTPHeaderPrefix + "accept":     true,
	pb.AttrHTTPHeaderPrefix + "user-agent": true,
}

// Op returns an op without credentials. It is no op to execute: its digest is another.
func Op(op *pb.Op) *pb.Op {
	op = proto.CloneOf(op)
	message(op.ProtoReflect())
	switch o := op.GetOp().(type) {
	case *pb.Op_Source:
		headers(o.Source.GetAttrs())
	case *pb.Op_File:
		for _, a := range o.File.GetActions() {
			if mk := a.GetMkfile(); mk != nil {
				mk.Data = data(mk.GetData())
			}
		}
	case *pb.Op_Exec:
		if env := o.Exec.GetMeta().GetProxyEnv(); env != nil {
			for _, field := range []*string{&env.HttpProxy, &env.HttpsProxy, &env.FtpProxy, &env.NoProxy, &env.AllProxy} {
				*field = proxy(*field)
			}
		}
	case *pb.Op_Build:
		o.Build.Def = Definition(o.Build.GetDef())
	}
	return op
}

func headers(attrs map[string]string) {
	for k := range attrs {
		if strings.HasPrefix(k, pb.AttrHTTPHeaderPrefix) && !plainHeaders[k] {
			attrs[k] = Hidden
		}
	}
}

// message redacts all texts in a message, which may have urls anywhere: what a field is for says
// nothing of what is put into it.
func message(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				if e, changed := value(fd.MapValue(), e); changed {
					v.Map().Set(k, e)
				}
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				if e, changed := value(fd, v.List().Get(i)); changed {
					v.List().Set(i, e)
				}
			}
		default:
			if e, changed := value(fd, v); changed {
				m.Set(fd, e)
			}
		}
		return true
	})
}

// value returns one value redacted, and whether it is another.
func value(fd protoreflect.FieldDescriptor, v protoreflect.Value) (protoreflect.Value, bool) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		message(v.Message())
	case protoreflect.StringKind:
		if text := giturl.Redact(v.String()); text != v.String() {
			return protoreflect.ValueOfString(text), true
		}
	}
	return v, false
}

// Message returns a copy of a message with no credentials in its texts.
func Message[M proto.Message](m M) M {
	m = proto.CloneOf(m)
	message(m.ProtoReflect())
	return m
}

// Map returns a map with keys and values without credentials, not even in what of them is base64:
// answers of frontends hold files in JSON.
func Map(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[giturl.Redact(k)] = encoded.ReplaceAllStringFunc(Option(k, v), redactEncoded)
	}
	return out
}

// encoded is what may be base64 of a url with credentials and what is around it.
var encoded = regexp.MustCompile(`[A-Za-z0-9+/]{12,}={0,2}`)

func redactEncoded(text string) string {
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return text
	}
	clean := giturl.Redact(string(plain))
	switch {
	case clean == string(plain):
		return text
	case !utf8.ValidString(clean):
		clean = Hidden // whatever it is, it would not be that without a part of it
	}
	return base64.StdEncoding.EncodeToString([]byte(clean))
}

func texts(m map[string]string) {
	for k, v := range m {
		m[k] = giturl.Redact(v)
	}
}

const buildArg = "build-arg:"

// Option returns the value of an option of a frontend without credentials.
func Option(key, value string) string {
	if name, ok := strings.CutPrefix(key, buildArg); ok && strings.HasSuffix(strings.ToLower(name), "_proxy") {
		return proxy(value)
	}
	return giturl.Redact(value)
}

// proxy returns the address of a proxy without credentials. It need not be a url.
func proxy(address string) string {
	if at := strings.LastIndex(address, "@"); at >= 0 && !strings.Contains(address, "://") {
		return Hidden + address[at:]
	}
	return giturl.Redact(address)
}

func data(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	return []byte(giturl.Redact(string(b)))
}

// SourceInfo returns a file that a graph was made of without credentials. Its definition, if that holds
// any, is left out.
func SourceInfo(info *pb.SourceInfo) *pb.SourceInfo {
	if info == nil {
		return nil
	}
	info = proto.CloneOf(info)
	info.Data = data(info.GetData())
	info.Definition = Definition(info.GetDefinition())
	return info
}

// Definition returns a definition that holds no credentials, and nil for one that does: without them
// its vertices would be others.
func Definition(def *pb.Definition) *pb.Definition {
	for _, data := range def.GetDef() {
		op := &pb.Op{}
		if proto.Unmarshal(data, op) != nil || !proto.Equal(op, Op(op)) {
			return nil
		}
	}
	if def.GetMetadata() == nil && def.GetSource() == nil {
		return def
	}
	def = proto.CloneOf(def)
	for _, m := range def.GetMetadata() {
		texts(m.GetDescription())
	}
	for i, info := range def.GetSource().GetInfos() {
		def.Source.Infos[i] = SourceInfo(info)
	}
	return def
}
