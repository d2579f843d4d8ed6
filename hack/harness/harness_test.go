package harness

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestMain lets the test binary stand in for the programs, so that the harness can be tested
// without them.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "buildkitd":
		os.Exit(standInDaemon())
	case "buildctl":
		os.Exit(standInClient())
	}
	dir, err := os.MkdirTemp("", "harness-bin-")
	if err != nil {
		panic(err)
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for _, program := range []string{"buildkitd", "buildctl"} {
		if err := os.Symlink(self, filepath.Join(dir, program)); err != nil {
			panic(err)
		}
	}
	if err := os.Setenv("BUILDKIT_TEST_BIN", dir); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// standInDaemon is a buildkitd that serves nothing but health, and a profile where asked to.
func standInDaemon() int {
	flags := flag.NewFlagSet("buildkitd", flag.ExitOnError)
	root := flags.String("root", "", "")
	addr := flags.String("addr", "", "")
	debug := flags.String("debugaddr", "", "")
	refuse := flags.Bool("refuse", false, "")
	flags.String("config", "", "")
	flags.String("otel-socket-path", "", "")
	_ = flags.Parse(os.Args[1:])
	fmt.Fprintln(os.Stderr, "stand-in daemon")
	if *refuse {
		return 1
	}
	if err := os.MkdirAll(*root, 0o700); err != nil {
		panic(err)
	}
	listen := func(addr string) net.Listener {
		path := strings.TrimPrefix(addr, "unix://")
		_ = os.Remove(path)
		l, err := net.Listen("unix", path)
		if err != nil {
			panic(err)
		}
		return l
	}
	if *debug != "" {
		go http.Serve(listen(*debug), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:errcheck,gosec // ends with the process
			fmt.Fprintln(w, "goroutine profile: total 42")
		}))
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		server.Stop()
	}()
	if err := server.Serve(listen(*addr)); err != nil {
		panic(err)
	}
	return 0
}

// standInClient prints its daemon's address and ends with the code that its first argument says.
func standInClient() int {
	fmt.Println(os.Getenv("BUILDKIT_HOST"))
	code := 0
	_, _ = fmt.Sscan(os.Args[1], &code)
	return code
}

func TestADaemonStartsRestartsAndRunsClients(t *testing.T) {
	d := StartDaemon(t, DaemonOptions{Debug: true})
	require.Equal(t, Result{Stdout: d.Addr + "\n", Code: 3}, d.Buildctl(t, "3"))
	require.Equal(t, 42, d.Goroutines(t))
	first := d.Pid()
	d.Restart(t)
	require.NotEqual(t, first, d.Pid())
	d.Kill(t)
	<-d.Done()
	d.Start(t)
	d.RequireIdle(t)
	require.Equal(t, 3, strings.Count(d.Logs(), "stand-in daemon\n"))
}

func TestADaemonThatEndsAtOnceIsNotWaitedFor(t *testing.T) {
	d := &Daemon{Addr: "unix:///nonexistent.sock", log: newLogBuffer()}
	p, err := startProcess("buildkitd", exec.Command(filepath.Join(Binaries(t), "buildkitd"), "-refuse"), d.log)
	require.NoError(t, err)
	d.process = p
	require.ErrorContains(t, d.awaitHealth(t.Context()), "it ended: exit status 1")
	require.Equal(t, "stand-in daemon\n", d.Logs())
}

func TestLeaksAreSeenAndCleanedUp(t *testing.T) {
	d := StartDaemon(t, DaemonOptions{})
	require.Empty(t, d.leaks())

	mount := filepath.Join(d.Root, "mnt")
	require.NoError(t, os.Mkdir(mount, 0o755))
	require.NoError(t, unix.Mount("tmpfs", mount, "tmpfs", 0, ""))
	require.Equal(t, []string{"mount " + mount}, d.leaks())
	require.NoError(t, unix.Unmount(mount, 0))

	child := exec.Command("sleep", "600")
	child.Env = []string{markerVariable + "=" + d.marker}
	require.NoError(t, child.Start())
	want := fmt.Sprintf("process %d: sleep 600", child.Process.Pid)
	// The kernel fills in the environment a little after Start has returned.
	require.Eventually(t, func() bool { return slices.Equal([]string{want}, d.leaks()) }, 10*time.Second, time.Millisecond)
	require.NoError(t, child.Process.Kill())
	_ = child.Wait()

	cgroup := filepath.Join(cgroupHierarchy(t), d.marker, "buildkit", "container")
	require.NoError(t, os.MkdirAll(cgroup, 0o755))
	require.Equal(t, []string{"cgroup " + cgroup}, d.leaks())
	require.NoError(t, os.Remove(cgroup))
	require.Empty(t, d.leaks(), "what stands above the cgroups of containers may stay")

	state := filepath.Join(d.Root, "runc", "container", "state.json")
	require.NoError(t, os.MkdirAll(filepath.Dir(state), 0o755))
	require.NoError(t, os.WriteFile(state, nil, 0o600))
	require.Equal(t, []string{"container " + filepath.Dir(state)}, d.leaks())
	require.NoError(t, os.RemoveAll(filepath.Dir(state)))

	left := filepath.Join(d.tempDir(), "left")
	require.NoError(t, os.WriteFile(left, nil, 0o600))
	require.Empty(t, d.leaks(), "a running daemon may have temporary files")
	d.Stop(t)
	require.Equal(t, []string{"temporary file left"}, d.leaks())
	require.NoError(t, os.Remove(left))

	require.NoError(t, unix.Mount("tmpfs", mount, "tmpfs", 0, ""))
	d.cleanUp(t)
	require.NoDirExists(t, d.dir)
	require.NoDirExists(t, filepath.Join(cgroupHierarchy(t), d.marker))
	// The end of the test stops the daemon no more, and its files are gone.
	require.NoError(t, os.MkdirAll(d.tempDir(), 0o755))
	require.NoError(t, os.MkdirAll(d.Root, 0o755))
}

// cgroupHierarchy returns a hierarchy that this machine has: that of pids, or the unified one.
func cgroupHierarchy(t *testing.T) string {
	t.Helper()
	if info, err := os.Stat(filepath.Join(cgroupRoot, "pids")); err == nil && info.IsDir() {
		return filepath.Join(cgroupRoot, "pids")
	}
	require.FileExists(t, filepath.Join(cgroupRoot, "cgroup.procs"))
	return cgroupRoot
}

func TestConfigurationIsLaidOverTheHarnessOwn(t *testing.T) {
	d := &Daemon{marker: "buildkit-1", options: DaemonOptions{
		Registry: &Registry{Host: "127.0.0.1:5000"},
		Config:   "debug = true\n[worker.oci]\ngc = true\n[registry.\"example.com\"]\nhttp = true\n",
	}}
	text, err := d.config()
	require.NoError(t, err)
	var got table
	require.NoError(t, toml.Unmarshal(text, &got))
	require.Equal(t, table{
		"debug": true,
		"worker": table{
			"oci":        table{"gc": true, "defaultCgroupParent": "/buildkit-1"},
			"containerd": table{"enabled": false},
		},
		"registry": table{
			"docker.io":      table{"mirrors": []any{"127.0.0.1:5000"}},
			"127.0.0.1:5000": table{"http": true},
			"example.com":    table{"http": true},
		},
	}, got)
}

func TestARegistryKeepsWhatIsPushed(t *testing.T) {
	r := StartRegistry(t)
	r.PushBusybox(t)
	ref, err := name.ParseReference(r.Host + "/library/full:latest")
	require.NoError(t, err)
	image, err := remote.Image(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image))
}
