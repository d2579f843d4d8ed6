package solver

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/provenance"
)

// requests are some that a client has made, each with the definitions that it returned.
type requests map[digest.Digest]*asked

func definitionOf(name string) *pb.Definition { return &pb.Definition{Def: [][]byte{[]byte(name)}} }

func (r requests) made(root digest.Digest) *asked { return r[root] }

// add adds a request of a client that is given what others returned.
func (r requests) add(client *asked, name string, inputs ...string) *asked {
	a := &asked{frontend: name, parent: client, inputs: map[string]*pb.Definition{}}
	for i, in := range inputs {
		a.inputs[fmt.Sprint(i)] = definitionOf(in)
	}
	r[digest.FromString(name)] = a
	return a
}

func TestRequestsAreToldWithThoseOfTheirInputs(t *testing.T) {
	client, all := &asked{}, requests{}
	all.add(client, "base")
	all.add(client, "beside")
	all.add(client, "middle", "base", "unknown")
	top := all.add(client, "top", "middle", "base")
	require.Equal(t, &provenance.Request{Frontend: "top", Inputs: map[string]*provenance.Request{
		"0": {Frontend: "middle", Inputs: map[string]*provenance.Request{"0": {Frontend: "base"}, "1": nil}},
		"1": {Frontend: "base"},
	}}, top.request(all.made))
	var names []string
	for _, a := range top.sources(all.made) {
		names = append(names, a.frontend)
	}
	require.Equal(t, []string{"top", "middle", "base"}, names)
}

func TestRequestsThatAreInputsOfEachOtherAreToldOnce(t *testing.T) {
	client, all := &asked{}, requests{}
	one := all.add(client, "one", "two", "one")
	all.add(client, "two", "one")
	require.Equal(t, &provenance.Request{Frontend: "one", Inputs: map[string]*provenance.Request{
		"0": {Frontend: "two", Inputs: map[string]*provenance.Request{"0": nil}}, "1": nil,
	}}, one.request(all.made))
	require.Len(t, one.sources(all.made), 2)
}

func TestOfManyInputsOfInputsSomeAreTold(t *testing.T) {
	client, all := &asked{}, requests{}
	top := all.add(client, "0")
	for i := range 40 {
		top = all.add(client, fmt.Sprint(i+1), fmt.Sprint(i), fmt.Sprint(i))
	}
	count := 0
	for todo := []*provenance.Request{top.request(all.made)}; len(todo) > 0; todo = todo[1:] {
		count++
		for _, in := range todo[0].Inputs {
			if in != nil {
				todo = append(todo, in)
			}
		}
	}
	require.Equal(t, 1+maxTold, count)
	require.Len(t, top.sources(all.made), 41)
}
