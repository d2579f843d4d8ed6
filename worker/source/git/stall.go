//go:build linux

package git

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultStall is how long a remote may be silent. Some prepare what they send for minutes.
	defaultStall = 5 * time.Minute
	// looks is how many looks at the processes make up that time: a machine that has stood still
	// looks late, and finds that nothing was missed.
	looks = 20
	// idle is which part of the time between two looks a processor may work for processes that
	// only wait.
	idle = 100
	// tick is the unit of the kernel's account of processors (USER_HZ).
	tick = time.Second / 100
)

// StalledError says that a remote was silent for too long.
type StalledError struct{ After time.Duration }

// Error tells the time.
func (e *StalledError) Error() string {
	return fmt.Sprintf("the server sent nothing for %s", e.After)
}

// Timeout returns true.
func (e *StalledError) Timeout() bool { return true }

// watch calls stalled when the processes of a group have done nothing but wait for the time that a
// remote may be silent, and returns when ctx ends. It knows no transport: what comes from a remote
// goes through git, whose bytes the kernel counts. Of ssh they don't count, which keeps talking to
// a server whose git has gone silent.
func watch(ctx context.Context, group int, stall time.Duration, stalled func(error)) {
	every := time.NewTicker(stall / looks)
	defer every.Stop()
	var last pulse
	for waited := 0; waited < looks; waited++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		now := pulseOf(group)
		if last.livesIn(now, stall/looks) {
			waited = -1
		}
		last = now
	}
	stalled(&StalledError{stall})
}

// pulse is what the processes of a group have done so far.
type pulse struct {
	// unknown is true if the kernel does not tell.
	unknown bool
	// bytes are those read and written, faults the pages that were waited for.
	bytes, faults uint64
	// ticks are the time of processors.
	ticks uint64
}

// livesIn tells whether the processes did something between a look and a later one.
func (p pulse) livesIn(now pulse, between time.Duration) bool {
	if now.unknown || now.bytes != p.bytes || now.faults != p.faults {
		return true
	}
	worked := time.Duration(now.ticks-p.ticks) * tick
	return now.ticks < p.ticks || worked > between/idle+tick
}

// pulseOf adds up what the processes of a group have done.
func pulseOf(group int) (sum pulse) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return pulse{unknown: true}
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		name, p, ok := parseStat(string(stat), group)
		if !ok || name == "ssh" {
			continue
		}
		bytes, err := os.ReadFile(filepath.Join(filepath.Dir(file), "io"))
		if err != nil && !os.IsNotExist(err) && !isGone(filepath.Dir(file)) {
			return pulse{unknown: true}
		}
		sum.bytes += parseIO(bytes)
		sum.faults += p.faults
		sum.ticks += p.ticks
	}
	return sum
}

// isGone tells whether a process has ended, of which the files can't be read then.
func isGone(dir string) bool {
	_, err := os.Stat(dir)
	return err != nil
}

// parseStat reads the name and the account of a process (proc_pid_stat(5)); false if it is of
// another group.
func parseStat(stat string, group int) (name string, p pulse, ok bool) {
	const pgrp, majflt, utime, stime = 2, 9, 11, 12 // from the third field on
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", p, false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) <= stime || fields[pgrp] != strconv.Itoa(group) {
		return "", p, false
	}
	for _, f := range []struct {
		at  int
		sum *uint64
	}{{majflt, &p.faults}, {utime, &p.ticks}, {stime, &p.ticks}} {
		n, err := strconv.ParseUint(fields[f.at], 10, 64)
		if err != nil {
			return "", p, false
		}
		*f.sum += n
	}
	return stat[open+1 : end], p, true
}

// parseIO adds up what a process has read and written (proc_pid_io(5)).
func parseIO(data []byte) (sum uint64) {
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		if key == "rchar" || key == "wchar" {
			n, _ := strconv.ParseUint(value, 10, 64)
			sum += n
		}
	}
	return sum
}
