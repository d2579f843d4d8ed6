package redact_test

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/redact"
)

const secret, shown = "http://user:sesame@h/x", "http://xxxxx@h/x"

func TestOpsHaveNoCredentialsInAnyField(t *testing.T) {
	def, err := proto.Marshal(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: secret}}})
	require.NoError(t, err)
	for name, op := range map[string]*pb.Op{
		"source": {Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: secret, Attrs: map[string]string{
			"git.fullurl": secret, pb.AttrHTTPHeaderPrefix + "authorization": "Bearer sesame",
		}}}},
		"exec": {Op: &pb.Op_Exec{Exec: &pb.ExecOp{
			Meta: &pb.Meta{
				Args: []string{"get", secret}, Env: []string{"URL=" + secret}, Hostname: secret, CgroupParent: secret,
				ProxyEnv: &pb.ProxyEnv{HttpProxy: secret, AllProxy: "user:sesame@h:3128"}, ExtraHosts: []*pb.HostIP{{Host: secret}},
			},
			Mounts: []*pb.Mount{{Dest: secret, CacheOpt: &pb.CacheOpt{ID: secret}}},
		}}},
		"file": {Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{
			{Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/x", Data: []byte("get " + secret)}}},
			{Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: secret}}},
		}}}},
		"build": {Op: &pb.Op_Build{Build: &pb.BuildOp{Attrs: map[string]string{"context": secret}, Def: &pb.Definition{Def: [][]byte{def}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.CloneOf(op)
			data, err := proto.Marshal(redact.Op(op))
			require.NoError(t, err)
			require.NotContains(t, string(data), "sesame")
			require.Contains(t, string(data)+shown, shown)
			require.True(t, proto.Equal(before, op), "the op itself is as it was")
		})
	}
	require.Nil(t, redact.Op(nil))
	plain := &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "https://h/x", Attrs: map[string]string{
		pb.AttrHTTPHeaderPrefix + "accept": "text/*", pb.AttrHTTPHeaderPrefix + "user-agent": "x",
	}}}}
	require.True(t, proto.Equal(plain, redact.Op(plain)))
}

func TestADefinitionWithCredentialsIsLeftOut(t *testing.T) {
	def := func(identifier string) *pb.Definition {
		data, err := proto.Marshal(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: identifier}}})
		require.NoError(t, err)
		return &pb.Definition{
			Def:      [][]byte{data},
			Metadata: map[string]*pb.OpMetadata{"x": {Description: map[string]string{pb.DescriptionName: "get " + secret}}},
			Source:   &pb.Source{Infos: []*pb.SourceInfo{{Data: []byte("ADD " + secret)}}},
		}
	}
	require.Nil(t, redact.Definition(def(secret)))
	require.Nil(t, redact.Definition(&pb.Definition{Def: [][]byte{{0xff}}}))
	kept := redact.Definition(def("http://h/x"))
	require.Len(t, kept.Def, 1)
	require.Equal(t, "get "+shown, kept.Metadata["x"].Description[pb.DescriptionName])
	require.Equal(t, "ADD "+shown, string(kept.Source.Infos[0].Data))
	require.Equal(t, "a "+shown, string(redact.SourceInfo(&pb.SourceInfo{Data: []byte("a " + secret)}).Data))
	require.Nil(t, redact.SourceInfo(nil))
}

func TestOptionsHaveNoCredentials(t *testing.T) {
	for key, value := range map[string]string{
		"context": secret, "build-arg:X": "see " + secret, secret: "x", "build-arg:HTTP_PROXY": secret,
		"build-arg:https_proxy": "user:sesame@proxy:3128", "build-arg:ALL_PROXY": "user:ses@me@proxy",
	} {
		for k, v := range redact.Map(map[string]string{key: value}) {
			require.NotContains(t, k+v, "sesame", key)
			require.NotContains(t, k+v, "ses@me", key)
			require.Contains(t, k+v, "xxxxx", key)
		}
	}
	for key, value := range map[string]string{
		"build-arg:HTTP_PROXY": "proxy:3128", "build-arg:NO_PROXY": "localhost,10.0.0.0/8", "build-arg:MAIL": "user@h", "target": "user:x@y",
	} {
		require.Equal(t, value, redact.Option(key, value), key)
	}
	require.Nil(t, redact.Map(nil))
}

func TestAnswersHaveNoCredentialsInTheirFiles(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	file, plain := "ARG URL="+secret+"\nADD ${URL} /x\n", encode([]byte("nothing to hide in here"))
	got := redact.Map(map[string]string{
		"result.json": `{"sources":["` + encode([]byte(file)) + `","` + plain + `"],"value":"` + secret + `"}`,
		"binary":      encode([]byte("\xff\xfe" + secret)),
		"token":       "AAAABBBBCCCCDDDD",
	})
	require.Equal(t, map[string]string{
		"result.json": `{"sources":["` + encode([]byte("ARG URL="+shown+"\nADD ${URL} /x\n")) + `","` + plain + `"],"value":"` + shown + `"}`,
		"binary":      encode([]byte("xxxxx")),
		"token":       "AAAABBBBCCCCDDDD",
	}, got)
}
