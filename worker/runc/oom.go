package runc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/spec"
)

// cgroupRoot is where cgroups are mounted: version 2, or the hierarchies of version 1.
const cgroupRoot = "/sys/fs/cgroup"

// oomWatch finds out whether the kernel ended a process of a container for want of memory. The
// kernel counts that in the container's cgroup: it is read before the cgroup goes. Where the runtime
// removes the cgroup by itself, events are followed from the start of the process on.
type oomWatch struct {
	follow bool

	file  string   // memory.events or memory.oom_control; empty if unknown
	event *os.File // wakes the follower
	hit   atomic.Bool
	done  chan struct{}
}

// start takes note of the cgroup of a process that has just begun to run.
func (w *oomWatch) start(c cgroup) {
	w.file = oomFile(c)
	if !w.follow || w.file == "" {
		return
	}
	event, err := oomEvents(w.file)
	if err != nil {
		return // no cgroup of its own: nothing to tell
	}
	w.event, w.done = event, make(chan struct{})
	go w.run()
}

// run notes kills while the cgroup is there. Version 1 also signals the end of the cgroup: then
// there is nothing to read, and the counter is more than 1 if there was something else.
func (w *oomWatch) run() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		n, err := w.event.Read(buf)
		if err != nil {
			return
		}
		kills, err := readOOM(w.file)
		gone := err != nil
		if v1 := strings.HasSuffix(w.file, oomV1); v1 {
			if !gone || n == 8 && buf[0] > 1 {
				w.hit.Store(true)
			}
		} else if kills > 0 {
			w.hit.Store(true)
		}
		if gone {
			return
		}
	}
}

// read reads the counter of a cgroup that has been kept.
func (w *oomWatch) read() {
	if w.follow || w.file == "" {
		return
	}
	if n, err := readOOM(w.file); err == nil && n > 0 {
		w.hit.Store(true)
	}
}

// close ends the following.
func (w *oomWatch) close() {
	if w.event != nil {
		w.event.Close()
		<-w.done
	}
}

func (w *oomWatch) killed() bool { return w.hit.Load() }

// cgroup is where a process is, by version.
type cgroup struct{ v1, v2 string }

// cgroupOf returns the cgroup of the process pid, the init of a container with a path for that.
func cgroupOf(cgroupsPath string, pid int) cgroup {
	if spec.IsSystemdPath(cgroupsPath) {
		return pidCgroup(pid)
	}
	return cgroup{v1: cgroupsPath, v2: cgroupsPath}
}

const (
	oomV1 = "memory.oom_control"
	oomV2 = "memory.events"
)

// oomFile returns the file that counts the kills in c, empty if memory is not accounted there.
func oomFile(c cgroup) string {
	for _, p := range []string{
		filepath.Join(cgroupRoot, "memory", c.v1, oomV1),
		filepath.Join(cgroupRoot, c.v2, oomV2),
	} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// pidCgroup reads /proc/PID/cgroup.
func pidCgroup(pid int) cgroup {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return cgroup{}
	}
	defer f.Close()
	return parseCgroup(f)
}

func parseCgroup(r io.Reader) (c cgroup) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		f := strings.SplitN(sc.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		for ctl := range strings.SplitSeq(f[1], ",") {
			if ctl == "memory" {
				c.v1 = f[2]
			}
		}
		if f[0] == "0" && f[1] == "" {
			c.v2 = f[2]
		}
	}
	return c
}

func readOOM(file string) (uint64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return parseOOM(f)
}

// parseOOM returns the value of oom_kill, which both versions of the file have.
func parseOOM(r io.Reader) (uint64, error) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "oom_kill "); ok {
			return strconv.ParseUint(v, 10, 64)
		}
	}
	if err := sc.Err(); err != nil {
		return 0, err
	}
	return 0, errors.New("no oom_kill counter")
}

// oomEvents returns a file that becomes readable when something happens to the counters.
func oomEvents(file string) (*os.File, error) {
	if strings.HasSuffix(file, oomV2) {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, err
		}
		if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return nil, err
		}
		return os.NewFile(uintptr(fd), file), nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	event := os.NewFile(uintptr(fd), file)
	control, err := os.Open(file)
	if err != nil {
		return nil, errors.Join(err, event.Close())
	}
	defer control.Close()
	line := fmt.Sprintf("%d %d", fd, control.Fd())
	err = os.WriteFile(filepath.Join(filepath.Dir(file), "cgroup.event_control"), []byte(line), 0)
	if err != nil {
		return nil, errors.Join(err, event.Close())
	}
	return event, nil
}
