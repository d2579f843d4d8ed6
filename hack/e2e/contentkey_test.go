package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// mountStep is a step on busybox that mounts of an own tree, the files of which are given by their
// paths, as the mounts say; their input is the tree's.
type mountStep struct {
	files  map[string]string
	mounts []*pb.Mount
	output int64
}

// definition returns the step, of a name of its own, and its definition.
func (s mountStep) definition(t *testing.T, script string) (*pb.Definition, *pb.Input) {
	t.Helper()
	d := newDefinition(t)
	var actions []*pb.FileAction
	for _, dir := range []string{"/x", "/y", "/z"} {
		actions = append(actions, &pb.FileAction{Input: int64(len(actions)) - 1, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkdir{
			Mkdir: &pb.FileActionMkDir{Path: dir, Mode: 0o755, Timestamp: -1},
		}})
	}
	for _, path := range []string{"/x/f", "/y/f", "/z/f"} {
		actions = append(actions, &pb.FileAction{Input: int64(len(actions)) - 1, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkfile{
			Mkfile: &pb.FileActionMkFile{Path: path, Mode: 0o644, Data: []byte(s.files[path]), Timestamp: -1},
		}})
	}
	actions[len(actions)-1].Output = 0
	step := run(d.add(busybox()), func(exec *pb.ExecOp) {
		exec.Meta.Args = []string{"sh", "-c", script}
		for _, m := range s.mounts {
			m.Input = 1
			exec.Mounts = append(exec.Mounts, m)
		}
	})
	step.Inputs = append(step.Inputs, d.add(file(nil, actions...)))
	in := d.add(step)
	in.Index = s.output
	return d.Definition, in
}

// found builds the step and tells whether it was found in the cache.
func (s mountStep) found(t *testing.T, d *harness.Daemon, script string) bool {
	t.Helper()
	def, in := s.definition(t, script)
	r := requireSolved(t, solve(t, d, (&definition{tb: t, Definition: def}).end(in)))
	for _, v := range vertexes(t, r) {
		if strings.Contains(v.Name, script) {
			return v.Cached
		}
	}
	t.Fatalf("no vertex %q", script)
	return false
}

func shown(dest, selector string) *pb.Mount {
	return &pb.Mount{Dest: dest, Selector: selector, Output: -1, Readonly: true}
}

func TestAStepIsFoundByWhatItsMountsShow(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	same := map[string]string{"/x/f": "same", "/y/f": "same", "/z/f": "other"}

	one := mountStep{files: same, mounts: []*pb.Mount{shown("/in", "/x")}}
	require.False(t, one.found(t, d, "cat /in/f"))
	one.mounts = []*pb.Mount{shown("/in", "/y")}
	require.True(t, one.found(t, d, "cat /in/f"), "the same elsewhere")
	one.mounts = []*pb.Mount{shown("/in", "/z")}
	require.False(t, one.found(t, d, "cat /in/f"), "something else")

	two := mountStep{files: same, mounts: []*pb.Mount{shown("/1", "/x/f"), shown("/2", "/z/f")}}
	require.False(t, two.found(t, d, "cat /1 /2"))
	two.mounts = []*pb.Mount{shown("/1", "/y/f"), shown("/2", "/z/f")}
	require.True(t, two.found(t, d, "cat /1 /2"), "the same elsewhere")
	two.mounts = []*pb.Mount{shown("/1", "/z/f"), shown("/2", "/x/f")}
	require.False(t, two.found(t, d, "cat /1 /2"), "the other way round")

	// What is around becomes part of the result, though no mount shows it.
	around := mountStep{files: same, output: 1, mounts: []*pb.Mount{{Dest: "/out", Selector: "/x", Output: 1}, shown("/in", "/y")}}
	require.False(t, around.found(t, d, "ls /out /in"))
	require.True(t, around.found(t, d, "ls /out /in"))
	around.files = map[string]string{"/x/f": "same", "/y/f": "same", "/z/f": "changed"}
	require.False(t, around.found(t, d, "ls /out /in"), "another tree")
	d.RequireIdle(t)
}
