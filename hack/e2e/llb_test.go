package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// marshal returns the definition of a state.
func marshal(tb testing.TB, state llb.State) *pb.Definition {
	tb.Helper()
	definition, err := state.Marshal(tb.Context())
	require.NoError(tb, err)
	return definition
}

// solve starts a build of a definition, with rawjson progress.
func solve(tb testing.TB, d *harness.Daemon, definition *pb.Definition, more ...string) *client {
	tb.Helper()
	data, err := proto.Marshal(definition)
	require.NoError(tb, err)
	return pipe(tb, d, data, append([]string{"--progress=rawjson"}, more...)...)
}

// pipe starts a build of the bytes of a definition.
func pipe(tb testing.TB, d *harness.Daemon, data []byte, more ...string) *client {
	tb.Helper()
	c := prepare(tb, d, append([]string{"build"}, more...)...)
	c.cmd.Stdin = bytes.NewReader(data)
	c.start(tb)
	return c
}

// requireSolved waits for a client that has to succeed.
func requireSolved(tb testing.TB, c *client) harness.Result {
	tb.Helper()
	result := c.wait(tb)
	require.Zero(tb, result.Code, result.Stderr)
	return result
}

// vertex is what rawjson says of a vertex.
type vertex struct {
	Digest    digest.Digest
	Name      string
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	Error     string
}

// vertexes returns the last word of rawjson progress on each vertex.
func vertexes(tb testing.TB, r harness.Result) map[digest.Digest]vertex {
	tb.Helper()
	found := map[digest.Digest]vertex{}
	for decoder := json.NewDecoder(strings.NewReader(r.Stderr)); ; {
		var message struct{ Vertexes []vertex }
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(tb, err, r.Stderr)
		for _, v := range message.Vertexes {
			found[v.Digest] = v
		}
	}
}

// definition is a graph put together op by op, for those that package llb would refuse to write.
type definition struct {
	tb testing.TB
	*pb.Definition
}

func newDefinition(tb testing.TB) *definition {
	tb.Helper()
	return &definition{tb: tb, Definition: &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}}
}

// add adds an op and returns it as an input for others.
func (d *definition) add(op *pb.Op) *pb.Input {
	d.tb.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	require.NoError(d.tb, err)
	return d.addBytes(data)
}

func (d *definition) addBytes(data []byte) *pb.Input {
	d.Def = append(d.Def, data)
	return &pb.Input{Digest: digest.FromBytes(data).String()}
}

// end adds the op that names the result.
func (d *definition) end(result *pb.Input) *pb.Definition {
	d.tb.Helper()
	d.add(&pb.Op{Inputs: []*pb.Input{result}})
	return d.Definition
}
