package api_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// wireCase is a message and its bytes, put together from field numbers by the functions below,
// which know nothing of the generated code. Fields stand in the order of their numbers, the one of
// a oneof last: ops are named by the digest of their bytes, so their order counts too.
type wireCase struct {
	name    string
	message proto.Message
	wire    []byte
}

// str encodes a string or bytes field.
func str(field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
}

// num encodes a field of any integer type, a bool or an enum.
func num(field protowire.Number, value int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), uint64(value))
}

// msg encodes a message field, also an entry of a map: a message with the key as field 1 and the
// value as field 2.
func msg(field protowire.Number, parts ...[]byte) []byte {
	return str(field, string(join(parts...)))
}

// packed encodes a repeated integer field.
func packed(field protowire.Number, values ...int64) []byte {
	var body []byte
	for _, v := range values {
		body = protowire.AppendVarint(body, uint64(v))
	}
	return str(field, string(body))
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func wireCases() []wireCase {
	return slices.Concat(controlCases, errdefsCases, gatewayCases, llbCases, sessionCases)
}

func TestMessagesKeepTheirBytesOnTheWire(t *testing.T) {
	for _, c := range wireCases() {
		t.Run(c.name, func(t *testing.T) {
			name, _, _ := strings.Cut(c.name, " ")
			require.Equal(t, name, string(c.message.ProtoReflect().Descriptor().FullName()))

			encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.message)
			require.NoError(t, err)
			require.Equal(t, hex.Dump(c.wire), hex.Dump(encoded))

			decoded := c.message.ProtoReflect().New().Interface()
			require.NoError(t, proto.Unmarshal(c.wire, decoded))
			require.True(t, proto.Equal(c.message, decoded), "decoded: %v", decoded)
			require.Empty(t, decoded.ProtoReflect().GetUnknown(), "every field is known")
		})
	}
}

func TestTheCasesSetEveryFieldOfEveryMessage(t *testing.T) {
	set := map[protoreflect.FullName]map[protoreflect.Name]bool{}
	for _, c := range wireCases() {
		m := c.message.ProtoReflect()
		name := m.Descriptor().FullName()
		if set[name] == nil {
			set[name] = map[protoreflect.Name]bool{}
		}
		m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			set[name][f.Name()] = true
			return true
		})
	}
	for _, file := range ourFiles() {
		for i := range file.Messages().Len() {
			m := file.Messages().Get(i)
			require.Contains(t, set, m.FullName(), "message without a case")
			for j := range m.Fields().Len() {
				require.Contains(t, set[m.FullName()], m.Fields().Get(j).Name(), "field of %s without a case", m.FullName())
			}
		}
	}
}

// method is a method of a service as clients call it.
type method struct {
	name                         string
	in, out                      string
	clientStreams, serverStreams bool
}

func TestServicesKeepTheirMethods(t *testing.T) {
	found := map[string][]method{}
	for _, file := range ourFiles() {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				found[string(s.FullName())] = append(found[string(s.FullName())], method{
					name:          string(m.Name()),
					in:            string(m.Input().FullName()),
					out:           string(m.Output().FullName()),
					clientStreams: m.IsStreamingClient(),
					serverStreams: m.IsStreamingServer(),
				})
			}
		}
	}
	require.Equal(t, services, found)
}

func TestEnumsKeepTheirNumbers(t *testing.T) {
	found := map[string]map[string]int32{}
	collect := func(list protoreflect.EnumDescriptors) {
		for i := range list.Len() {
			values := map[string]int32{}
			for j := range list.Get(i).Values().Len() {
				v := list.Get(i).Values().Get(j)
				values[string(v.Name())] = int32(v.Number())
			}
			found[string(list.Get(i).FullName())] = values
		}
	}
	for _, file := range ourFiles() {
		collect(file.Enums())
		for i := range file.Messages().Len() {
			collect(file.Messages().Get(i).Enums())
		}
	}
	require.Equal(t, enums, found)
}

// ourFiles returns the descriptors of the .proto files of this tree.
func ourFiles() []protoreflect.FileDescriptor {
	var files []protoreflect.FileDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(file.Path(), "api/") {
			files = append(files, file)
		}
		return true
	})
	return files
}
