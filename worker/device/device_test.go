package device_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/device"
)

const first = `
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.class: class1
containerEdits:
  env: ["VENDOR=1"]
devices:
  - name: foo
    annotations:
      org.mobyproject.buildkit.device.autoallow: "true"
    containerEdits:
      env: ["FOO=injected"]
      deviceNodes:
        - path: /dev/foo
          hostPath: /dev/null
  - name: bar
    containerEdits:
      env: ["BAR=injected"]
      mounts:
        - hostPath: /etc/hostname
          containerPath: /etc/bar
          options: [ro, bind]
`

const second = `{"cdiVersion": "0.6.0", "kind": "vendor2.com/device", "devices": [
	{"name": "baz", "annotations": {"org.mobyproject.buildkit.device.class": "class2"}, "containerEdits": {"env": ["BAZ=injected"]}}]}`

func write(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func registry(t *testing.T, autoAllowed ...string) (*device.Registry, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one.yaml"), first)
	write(t, filepath.Join(dir, "two.json"), second)
	r, err := device.New(device.Config{SpecDirs: []string{filepath.Join(dir, "absent"), dir}, AutoAllowed: autoAllowed})
	require.NoError(t, err)
	return r, dir
}

func names(devices []device.Device) []string {
	var out []string
	for _, d := range devices {
		out = append(out, d.Name)
	}
	return out
}

func TestNamesStandForDevices(t *testing.T) {
	r, _ := registry(t)
	for name, want := range map[string][]string{
		"vendor1.com/device=foo":  {"vendor1.com/device=foo"},
		"vendor1.com/device=none": nil,
		"vendor1.com/device":      {"vendor1.com/device=bar"},
		"vendor1.com/device=*":    {"vendor1.com/device=bar", "vendor1.com/device=foo"},
		"vendor3.com/device":      nil,
		"class1":                  {"vendor1.com/device=bar", "vendor1.com/device=foo"},
		"class2":                  {"vendor2.com/device=baz"},
		"class":                   nil,
		"":                        nil,
		"=*":                      nil,
		"../device=foo":           nil,
	} {
		require.Equal(t, want, names(r.Find(name)), name)
	}
	var none *device.Registry
	require.Empty(t, none.List())
	require.Empty(t, none.Find("class1"))
}

func TestSomeDevicesAreForEverybody(t *testing.T) {
	allowed := func(r *device.Registry) (all []string) {
		for _, d := range r.List() {
			if d.AutoAllow {
				all = append(all, d.Name)
			}
		}
		return all
	}
	r, _ := registry(t)
	require.Equal(t, []string{"vendor1.com/device=foo"}, allowed(r))
	require.Equal(t, "class1", r.List()[1].Annotations[device.ClassAnnotation])
	r, _ = registry(t, "vendor2.com/device", "vendor1.com/device=bar")
	require.Equal(t, []string{"vendor1.com/device=bar", "vendor1.com/device=foo", "vendor2.com/device=baz"}, allowed(r))
	for _, bad := range []string{"", "vendor", "vendor/", "=x", "a/b c"} {
		_, err := device.New(device.Config{AutoAllowed: []string{bad}})
		require.ErrorContains(t, err, "that is allowed for everybody", bad)
	}
}

func TestDevicesAreInjected(t *testing.T) {
	r, _ := registry(t)
	s := &specs.Spec{Process: &specs.Process{Env: []string{"PATH=/bin"}}, Linux: &specs.Linux{}}
	require.NoError(t, r.Inject(s, []*pb.CDIDevice{{Name: "class1"}, {Name: "vendor1.com/device=foo"}, {Name: "none", Optional: true}}))
	require.Equal(t, []string{"PATH=/bin", "VENDOR=1", "BAR=injected", "FOO=injected"}, s.Process.Env)
	require.Equal(t, "/dev/foo", s.Linux.Devices[0].Path)
	require.EqualValues(t, 3, s.Linux.Devices[0].Minor)
	require.True(t, s.Linux.Resources.Devices[0].Allow)
	require.Equal(t, "/etc/bar", s.Mounts[0].Destination)

	before := len(s.Process.Env)
	require.NoError(t, r.Inject(s, []*pb.CDIDevice{{Name: "none", Optional: true}}))
	require.EqualError(t, r.Inject(s, []*pb.CDIDevice{{Name: "class2"}, {Name: "none"}}), `required device "none" is not registered`)
	require.Len(t, s.Process.Env, before, "nothing is injected of a request that fails")
	var none *device.Registry
	require.EqualError(t, none.Inject(s, []*pb.CDIDevice{{Name: "class2"}}), `required device "class2" is not registered`)
	require.NoError(t, none.Inject(s, []*pb.CDIDevice{{Name: "class2", Optional: true}}))
}

func TestChangedFilesAreReadAgain(t *testing.T) {
	r, dir := registry(t)
	require.Len(t, r.List(), 3)
	write(t, filepath.Join(dir, "broken.yaml"), "kind: [")
	require.Len(t, r.List(), 3, "a broken file does not hide the others")
	require.NoError(t, os.Remove(filepath.Join(dir, "one.yaml")))
	require.Equal(t, []string{"vendor2.com/device=baz"}, names(r.List()))
	s := &specs.Spec{Process: &specs.Process{}}
	require.EqualError(t, r.Inject(s, []*pb.CDIDevice{{Name: "class1"}}), `required device "class1" is not registered`)
	write(t, filepath.Join(dir, "one.yaml"), first)
	require.NoError(t, r.Inject(s, []*pb.CDIDevice{{Name: "class1"}}))
	require.NoError(t, os.RemoveAll(dir))
	require.Empty(t, r.List())
}

func TestNoFoldersAreNoDevices(t *testing.T) {
	r, err := device.New(device.Config{})
	require.NoError(t, err)
	require.Empty(t, r.List())
}
