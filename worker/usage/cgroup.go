package usage

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cgroup is where processes are counted: a folder of version 2, or those of the controllers of version 1.
type Cgroup struct {
	v2      string
	cpu     string
	cpuacct string
	memory  string
	blkio   string
	pids    string
}

// NewCgroup returns the cgroup below root, where cgroups are mounted; v1 and v2 are its paths by version.
func NewCgroup(root, v1, v2 string) *Cgroup {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return &Cgroup{v2: filepath.Join(root, v2)}
	}
	dir := func(controller string) string { return filepath.Join(root, controller, v1) }
	return &Cgroup{cpu: dir("cpu"), cpuacct: dir("cpuacct"), memory: dir("memory"), blkio: dir("blkio"), pids: dir("pids")}
}

// Read returns a sample, nil if the kernel counts nothing there.
func (c *Cgroup) Read() *Sample {
	s := &Sample{Timestamp: time.Now().UTC()}
	if c.v2 != "" {
		s.CPU, s.Memory, s.IO, s.PIDs = cpuV2(c.v2), memoryV2(c.v2), ioV2(c.v2), pids(c.v2)
	} else {
		s.CPU, s.Memory, s.IO, s.PIDs = c.cpuV1(), memoryV1(c.memory), ioV1(c.blkio), pids(c.pids)
	}
	if s.CPU == nil && s.Memory == nil && s.IO == nil && s.PIDs == nil {
		return nil
	}
	return s
}

// counts is a file of names and numbers. Those that it does not have are nil.
type counts map[string]uint64

func readCounts(path string) counts {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	c := counts{}
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			c[name] = n
		}
	}
	return c
}

func (c counts) get(name string) *uint64 { return c.times(name, 1) }

// times returns the number in another unit.
func (c counts) times(name string, factor uint64) *uint64 {
	n, ok := c[name]
	if !ok {
		return nil
	}
	n *= factor
	return &n
}

func (c counts) get32(name string) *uint32 {
	n, ok := c[name]
	if !ok {
		return nil
	}
	short := uint32(n)
	return &short
}

// number reads a file that is a number.
func number(path string) *uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func pids(dir string) *PIDs {
	n := number(filepath.Join(dir, "pids.current"))
	if n == nil {
		return nil
	}
	return &PIDs{Current: n}
}

func cpuV2(dir string) *CPU {
	c := readCounts(filepath.Join(dir, "cpu.stat"))
	if c == nil {
		return nil
	}
	const micro = 1000 // nanoseconds
	return &CPU{
		UsageNanos: c.times("usage_usec", micro), UserNanos: c.times("user_usec", micro), SystemNanos: c.times("system_usec", micro),
		Periods: c.get32("nr_periods"), Throttled: c.get32("nr_throttled"), ThrottledNanos: c.times("throttled_usec", micro),
		Pressure: readPressure(filepath.Join(dir, "cpu.pressure")),
	}
}

func memoryV2(dir string) *Memory {
	c := readCounts(filepath.Join(dir, "memory.stat"))
	if c == nil {
		return nil
	}
	events := readCounts(filepath.Join(dir, "memory.events"))
	return &Memory{
		Swap: number(filepath.Join(dir, "memory.swap.current")),
		Anon: c.get("anon"), File: c.get("file"), Kernel: c.get("kernel"), KernelStack: c.get("kernel_stack"),
		PageTables: c.get("pagetables"), Sock: c.get("sock"), Vmalloc: c.get("vmalloc"), Shmem: c.get("shmem"),
		FileMapped: c.get("file_mapped"), FileDirty: c.get("file_dirty"), FileWriteback: c.get("file_writeback"), Slab: c.get("slab"),
		PageScans: c.get("pgscan"), PageSteals: c.get("pgsteal"), PageFaults: c.get("pgfault"), MajorFaults: c.get("pgmajfault"),
		Peak:      number(filepath.Join(dir, "memory.peak")),
		LowEvents: events["low"], HighEvents: events["high"], MaxEvents: events["max"],
		OOMEvents: events["oom"], OOMKillEvents: events["oom_kill"],
		Pressure: readPressure(filepath.Join(dir, "memory.pressure")),
	}
}

// ioV2 adds up devices: lines of "MAJOR:MINOR name=number ...".
func ioV2(dir string) *IO {
	text, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	if err != nil {
		return nil
	}
	sum := map[string]*uint64{}
	for _, name := range []string{"rbytes", "wbytes", "dbytes", "rios", "wios", "dios"} {
		sum[name] = new(uint64)
	}
	for field := range strings.FieldsSeq(string(text)) {
		name, value, _ := strings.Cut(field, "=")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil && sum[name] != nil {
			*sum[name] += n
		}
	}
	return &IO{
		ReadBytes: sum["rbytes"], WriteBytes: sum["wbytes"], DiscardBytes: sum["dbytes"],
		Reads: sum["rios"], Writes: sum["wios"], Discards: sum["dios"],
		Pressure: readPressure(filepath.Join(dir, "io.pressure")),
	}
}

// readPressure reads lines of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func readPressure(path string) *Pressure {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var p Pressure
	for line := range strings.Lines(string(text)) {
		kind, values, _ := strings.Cut(line, " ")
		switch kind {
		case "some":
			p.Some = parsePressure(values)
		case "full":
			p.Full = parsePressure(values)
		}
	}
	return &p
}

func parsePressure(text string) *PressureValues {
	var v PressureValues
	averages := map[string]**float64{"avg10": &v.Avg10, "avg60": &v.Avg60, "avg300": &v.Avg300}
	for field := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(field, "=")
		if to := averages[name]; to != nil {
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				*to = &n
			}
		} else if n, err := strconv.ParseUint(value, 10, 64); err == nil && name == "total" {
			v.Total = &n
		}
	}
	return &v
}

func (c *Cgroup) cpuV1() *CPU {
	total := number(filepath.Join(c.cpuacct, "cpuacct.usage"))
	throttled := readCounts(filepath.Join(c.cpu, "cpu.stat"))
	if total == nil && throttled == nil {
		return nil
	}
	return &CPU{
		UsageNanos:  total,
		UserNanos:   number(filepath.Join(c.cpuacct, "cpuacct.usage_user")),
		SystemNanos: number(filepath.Join(c.cpuacct, "cpuacct.usage_sys")),
		Periods:     throttled.get32("nr_periods"), Throttled: throttled.get32("nr_throttled"),
		ThrottledNanos: throttled.get("throttled_time"),
	}
}

// memoryV1 takes the numbers of version 1 that mean the same, those with the cgroups below.
func memoryV1(dir string) *Memory {
	c := readCounts(filepath.Join(dir, "memory.stat"))
	if c == nil {
		return nil
	}
	m := &Memory{
		Swap: c.get("total_swap"), Anon: c.get("total_rss"), File: c.get("total_cache"),
		Kernel: number(filepath.Join(dir, "memory.kmem.usage_in_bytes")),
		Sock:   number(filepath.Join(dir, "memory.kmem.tcp.usage_in_bytes")),
		Shmem:  c.get("total_shmem"), FileMapped: c.get("total_mapped_file"), FileDirty: c.get("total_dirty"),
		FileWriteback: c.get("total_writeback"), PageFaults: c.get("total_pgfault"), MajorFaults: c.get("total_pgmajfault"),
		Peak:          number(filepath.Join(dir, "memory.max_usage_in_bytes")),
		OOMKillEvents: readCounts(filepath.Join(dir, "memory.oom_control"))["oom_kill"],
	}
	if n := number(filepath.Join(dir, "memory.failcnt")); n != nil {
		m.MaxEvents = *n
	}
	return m
}

// ioV1 adds up devices: lines of "MAJOR:MINOR Operation number".
func ioV1(dir string) *IO {
	var v IO
	v.ReadBytes, v.WriteBytes, v.DiscardBytes = operations(filepath.Join(dir, "blkio.throttle.io_service_bytes_recursive"))
	v.Reads, v.Writes, v.Discards = operations(filepath.Join(dir, "blkio.throttle.io_serviced_recursive"))
	if v.ReadBytes == nil && v.Reads == nil {
		return nil
	}
	return &v
}

func operations(path string) (reads, writes, discards *uint64) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil
	}
	sum := map[string]*uint64{"Read": new(uint64), "Write": new(uint64), "Discard": new(uint64)}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || sum[f[1]] == nil {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 64); err == nil {
			*sum[f[1]] += n
		}
	}
	return sum["Read"], sum["Write"], sum["Discard"]
}
