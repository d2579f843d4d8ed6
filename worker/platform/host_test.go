package platform

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

const aarch64 = `enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
`

// noFlag and disabled are registrations that are of no use.
var (
	noFlag   = replace(aarch64, "flags: POF", "flags: P")
	disabled = replace(aarch64, "enabled", "disabled")
	python   = "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic a70d0d0a\n"
	jar      = "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n"
)

func replace(text, from, to string) string {
	return string(bytes.Replace([]byte(text), []byte(from), []byte(to), 1))
}

// binfmt returns a binfmt_misc with these registrations.
func binfmt(status string, texts ...string) fs.FS {
	dir := fstest.MapFS{"status": {Data: []byte(status + "\n")}, "register": {}}
	for i, text := range texts {
		dir[string(rune('a'+i))] = &fstest.MapFile{Data: []byte(text)}
	}
	return dir
}

// host returns an amd64 machine of the first generation that runs 386 as well.
func host(conf Config, read func() ([]*registration, error)) *Host {
	h := NewHost(conf)
	h.native = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	h.read = read
	h.tries = func(a *architecture) bool { return a.name() == "386" }
	return h
}

// others returns the names of what a host can run that the processor of an amd64 host cannot.
func others(h *Host) []string {
	var out []string
	for _, p := range h.List() {
		if p.Architecture != "amd64" {
			out = append(out, platforms.FormatAll(p))
		}
	}
	return out
}

func reading(dir fs.FS) func() ([]*registration, error) {
	return func() ([]*registration, error) { return registrations(dir) }
}

func TestEmulatorsThatContainersSeeCount(t *testing.T) {
	for name, c := range map[string]struct {
		dir  fs.FS
		want []string
	}{
		"none":                 {binfmt("enabled"), []string{"linux/386"}},
		"one, among others":    {binfmt("enabled", python, aarch64, jar), []string{"linux/arm64", "linux/386"}},
		"one that is off":      {binfmt("enabled", disabled), []string{"linux/386"}},
		"all are off":          {binfmt("disabled", aarch64), []string{"linux/386"}},
		"without the flag":     {binfmt("enabled", noFlag), []string{"linux/386"}},
		"twice, once of use":   {binfmt("enabled", noFlag, aarch64), []string{"linux/arm64", "linux/386"}},
		"what is not readable": {binfmt("enabled", "enabled\nmagic zz\n", "offset -1\nmagic 00\n", "", "\n\n"), []string{"linux/386"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(Config{}, reading(c.dir))
			require.Equal(t, ocispec.Platform{OS: "linux", Architecture: "amd64"}, h.List()[0])
			require.Equal(t, c.want, others(h))
		})
	}
}

func TestWhereRegistrationsAreHiddenProgramsAreTried(t *testing.T) {
	h := host(Config{}, func() ([]*registration, error) { return nil, errHidden })
	h.tries = func(a *architecture) bool { return a.name() == "arm" || a.name() == "s390x" }
	require.Equal(t, []string{"linux/s390x", "linux/arm/v7", "linux/arm/v6"}, others(h))
	require.NoError(t, h.Explain(ocispec.Platform{OS: "linux", Architecture: "s390x"}))
	require.Error(t, h.Explain(ocispec.Platform{OS: "linux", Architecture: "arm64"}))
}

func TestAListIsBelievedForAWhile(t *testing.T) {
	now, reads, dir := time.Now(), 0, binfmt("enabled")
	read := func() ([]*registration, error) {
		reads++
		return registrations(dir)
	}
	for name, c := range map[string]struct{ conf, age time.Duration }{
		"of its own":   {0, readMaxAge},
		"as was asked": {time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			reads, dir = 0, binfmt("enabled")
			h := host(Config{MaxAge: c.conf}, read)
			at := now
			h.now = func() time.Time { return at }
			h.List()
			dir = binfmt("enabled", aarch64)
			at = now.Add(c.age - 1)
			require.Equal(t, []string{"linux/386"}, others(h))
			require.Equal(t, 1, reads)
			at = now.Add(c.age)
			require.Equal(t, []string{"linux/arm64", "linux/386"}, others(h))
			require.Equal(t, 2, reads)
		})
	}
}

func TestAnExplanationIsOfNow(t *testing.T) {
	arm64 := ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	dir := binfmt("enabled")
	h := host(Config{MaxAge: time.Hour}, func() ([]*registration, error) { return registrations(dir) })
	h.List()
	require.EqualError(t, h.Explain(arm64), "the host of the daemon cannot run linux/arm64: no emulator is registered; "+
		"install one, such as qemu-user-static, that registers with binfmt_misc and flag F")
	dir = binfmt("enabled", noFlag)
	require.EqualError(t, h.Explain(arm64), "the host of the daemon cannot run linux/arm64: its emulator /usr/libexec/qemu-binfmt/aarch64-binfmt-P "+
		"is registered with binfmt_misc without flag F, so containers do not see it")
	dir = binfmt("enabled", disabled)
	require.ErrorContains(t, h.Explain(arm64), "disabled there")
	dir = binfmt("enabled", aarch64)
	require.NoError(t, h.Explain(arm64))
	require.Equal(t, []string{"linux/arm64", "linux/386"}, others(h), "what was found out meanwhile is known")

	for p, want := range map[string]string{
		"windows/amd64":  "it runs linux",
		"linux/amd64/v9": "its processor is older",
		"linux/vax":      "no emulator is known",
	} {
		parsed, err := Parse([]string{p})
		require.NoError(t, err)
		require.EqualError(t, h.Explain(parsed[0]), "the host of the daemon cannot run "+p+": "+want)
	}
	require.NoError(t, h.Explain(ocispec.Platform{OS: "linux", Architecture: "amd64"}))
}

func TestConfiguredPlatformsAreTheList(t *testing.T) {
	fixed, err := Parse([]string{"linux/arm64", "linux/amd64"})
	require.NoError(t, err)
	h := host(Config{Fixed: fixed}, reading(binfmt("enabled")))
	require.Equal(t, fixed, h.List())
	require.Equal(t, fixed[0], h.Default())
	require.Error(t, h.Explain(fixed[0]), "being listed does not make it run")

	_, err = Parse([]string{"linux/amd64", "no platform at all"})
	require.ErrorContains(t, err, "no platform at all")
}

func TestProgramsAreWellFormed(t *testing.T) {
	for _, a := range architectures {
		f, err := elf.NewFile(bytes.NewReader(a.program()))
		require.NoError(t, err, a.name())
		require.Equal(t, a.machine, f.Machine)
		require.Len(t, f.Progs, 1)
		require.Equal(t, uint64(len(a.program())), f.Progs[0].Filesz)
	}
}

// Debian's qemu-user-static brings the emulators.
func TestEveryProgramEndsWell(t *testing.T) {
	names := map[string]string{
		"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "mips64le": "mips64el", "loong64": "loongarch64",
	}
	for _, a := range architectures {
		emulator := names[a.name()]
		if emulator == "" {
			emulator = a.name()
		}
		file := filepath.Join(t.TempDir(), "program")
		require.NoError(t, os.WriteFile(file, a.program(), 0o700))
		out, err := exec.CommandContext(t.Context(), "qemu-"+emulator+"-static", file).CombinedOutput()
		require.NoError(t, err, "%s: %s", a.name(), out)
	}
}

// The emulator for arm64 is one of those that the set-up for tests registers.
func TestWhatIsTriedAgreesWithWhatIsRead(t *testing.T) {
	h := NewHost(Config{Dir: t.TempDir()})
	registered := func() []bool {
		regs, err := readBinfmt()
		require.NoError(t, err)
		return h.registered(regs)
	}
	before, tried := registered(), make([]bool, len(architectures))
	for i := range architectures {
		tried[i] = h.tries(&architectures[i])
	}
	after := registered()
	for i := range architectures {
		a := &architectures[i]
		switch {
		case a.name() == h.native.Architecture:
			require.True(t, tried[i], a.name())
		case before[i] != after[i]:
			// Somebody registers emulators at this moment.
		case seconds[a.name()] != h.native.Architecture:
			require.Equal(t, before[i], tried[i], a.name())
		}
		if a.name() == "arm64" {
			require.True(t, before[i] || h.native.Architecture == "arm64", "run hack/install-deps.sh test")
		}
	}
	require.Equal(t, h.native, h.List()[0])
	require.NoError(t, h.Explain(ocispec.Platform{OS: "linux", Architecture: "arm64"}))
}

func TestRegistrationsAreReadWithoutTheirMountPoint(t *testing.T) {
	f, err := mountBinfmt()
	require.NoError(t, err)
	require.NotNil(t, f, "the kernel has no binfmt_misc")
	defer f.Close()
	hidden, err := registrations(os.DirFS(fmt.Sprintf("/proc/self/fd/%d", f.Fd())))
	require.NoError(t, err)
	seen, err := registrations(os.DirFS(binfmtDir))
	require.NoError(t, err)
	h := NewHost(Config{})
	require.Equal(t, h.registered(seen)[1], h.registered(hidden)[1], "arm64")
	require.NotEmpty(t, hidden)
}
