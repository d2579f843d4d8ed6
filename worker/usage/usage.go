// Package usage samples what steps take of the machine, and what all of it is doing meanwhile.
//
// A runtime has a Steps of each container that asks for it start with the container's cgroup and stop
// before that goes; the solver puts the samples into provenance. The types have the JSON form that they
// have there. What a kernel does not count is nil: version 1 of cgroups knows no pressure.
package usage

import "time"

// Samples are those of a step, the first one first.
type Samples struct {
	Samples []*Sample `json:"samples,omitempty"`
	// System is the time of all processors between the start of the step and its end.
	System *SysCPU `json:"sysCPUStat,omitempty"`
}

// Sample is what the processes of a container have taken until a moment.
type Sample struct {
	Timestamp time.Time `json:"timestamp"`
	CPU       *CPU      `json:"cpuStat,omitempty"`
	Memory    *Memory   `json:"memoryStat,omitempty"`
	IO        *IO       `json:"ioStat,omitempty"`
	PIDs      *PIDs     `json:"pidsStat,omitempty"`
	// Network is nil for a step without interfaces of its own.
	Network *Network `json:"netStat,omitempty"`
}

// CPU is time, and how often it was not given.
type CPU struct {
	UsageNanos     *uint64   `json:"usageNanos,omitempty"`
	UserNanos      *uint64   `json:"userNanos,omitempty"`
	SystemNanos    *uint64   `json:"systemNanos,omitempty"`
	Periods        *uint32   `json:"nrPeriods,omitempty"`
	Throttled      *uint32   `json:"nrThrottled,omitempty"`
	ThrottledNanos *uint64   `json:"throttledNanos,omitempty"`
	Pressure       *Pressure `json:"pressure,omitempty"`
}

// Memory is in bytes, but for what is counted.
type Memory struct {
	Swap          *uint64   `json:"swapBytes,omitempty"`
	Anon          *uint64   `json:"anon,omitempty"`
	File          *uint64   `json:"file,omitempty"`
	Kernel        *uint64   `json:"kernel,omitempty"`
	KernelStack   *uint64   `json:"kernelStack,omitempty"`
	PageTables    *uint64   `json:"pageTables,omitempty"`
	Sock          *uint64   `json:"sock,omitempty"`
	Vmalloc       *uint64   `json:"vmalloc,omitempty"`
	Shmem         *uint64   `json:"shmem,omitempty"`
	FileMapped    *uint64   `json:"fileMapped,omitempty"`
	FileDirty     *uint64   `json:"fileDirty,omitempty"`
	FileWriteback *uint64   `json:"fileWriteback,omitempty"`
	Slab          *uint64   `json:"slab,omitempty"`
	PageScans     *uint64   `json:"pgscan,omitempty"`
	PageSteals    *uint64   `json:"pgsteal,omitempty"`
	PageFaults    *uint64   `json:"pgfault,omitempty"`
	MajorFaults   *uint64   `json:"pgmajfault,omitempty"`
	Peak          *uint64   `json:"peak,omitempty"`
	LowEvents     uint64    `json:"lowEvents,omitempty"`
	HighEvents    uint64    `json:"highEvents,omitempty"`
	MaxEvents     uint64    `json:"maxEvents,omitempty"`
	OOMEvents     uint64    `json:"oomEvents,omitempty"`
	OOMKillEvents uint64    `json:"oomKillEvents,omitempty"`
	Pressure      *Pressure `json:"pressure,omitempty"`
}

// IO is that of block devices.
type IO struct {
	ReadBytes    *uint64   `json:"readBytes,omitempty"`
	WriteBytes   *uint64   `json:"writeBytes,omitempty"`
	DiscardBytes *uint64   `json:"discardBytes,omitempty"`
	Reads        *uint64   `json:"readIOs,omitempty"`
	Writes       *uint64   `json:"writeIOs,omitempty"`
	Discards     *uint64   `json:"discardIOs,omitempty"`
	Pressure     *Pressure `json:"pressure,omitempty"`
}

// PIDs is how many processes and threads there are.
type PIDs struct {
	Current *uint64 `json:"current,omitempty"`
}

// Network is what has gone through the interfaces of a step, loopback aside, as the step sees it: received is
// what it has received.
type Network struct {
	RxBytes   int64 `json:"rxBytes,omitempty"`
	RxPackets int64 `json:"rxPackets,omitempty"`
	RxErrors  int64 `json:"rxErrors,omitempty"`
	RxDropped int64 `json:"rxDropped,omitempty"`
	TxBytes   int64 `json:"txBytes,omitempty"`
	TxPackets int64 `json:"txPackets,omitempty"`
	TxErrors  int64 `json:"txErrors,omitempty"`
	TxDropped int64 `json:"txDropped,omitempty"`
}

// Since returns what was counted between o and n.
func (n *Network) Since(o *Network) *Network {
	return &Network{
		RxBytes: n.RxBytes - o.RxBytes, RxPackets: n.RxPackets - o.RxPackets, RxErrors: n.RxErrors - o.RxErrors, RxDropped: n.RxDropped - o.RxDropped,
		TxBytes: n.TxBytes - o.TxBytes, TxPackets: n.TxPackets - o.TxPackets, TxErrors: n.TxErrors - o.TxErrors, TxDropped: n.TxDropped - o.TxDropped,
	}
}

// Pressure is how long processes have waited: some of them, or all at once.
type Pressure struct {
	Some *PressureValues `json:"some"`
	Full *PressureValues `json:"full"`
}

// PressureValues are the percentage of the last seconds, and microseconds.
type PressureValues struct {
	Avg10  *float64 `json:"avg10"`
	Avg60  *float64 `json:"avg60"`
	Avg300 *float64 `json:"avg300"`
	Total  *uint64  `json:"total"`
}

// SysSample is the state of the machine at a moment.
type SysSample struct {
	Timestamp      time.Time  `json:"timestamp"`
	CPU            *SysCPU    `json:"cpuStat,omitempty"`
	Processes      *Processes `json:"procStat,omitempty"`
	Memory         *SysMemory `json:"memoryStat,omitempty"`
	CPUPressure    *Pressure  `json:"cpuPressure,omitempty"`
	MemoryPressure *Pressure  `json:"memoryPressure,omitempty"`
	IOPressure     *Pressure  `json:"ioPressure,omitempty"`
}

// SysCPU is the time of all processors together, in seconds.
type SysCPU struct {
	User      float64 `json:"user"`
	Nice      float64 `json:"nice"`
	System    float64 `json:"system"`
	Idle      float64 `json:"idle"`
	IOWait    float64 `json:"iowait"`
	IRQ       float64 `json:"irq"`
	SoftIRQ   float64 `json:"softirq"`
	Steal     float64 `json:"steal"`
	Guest     float64 `json:"guest"`
	GuestNice float64 `json:"guestNice"`
}

// Processes counts what has happened since the machine was started, and who runs.
type Processes struct {
	ContextSwitches uint64 `json:"contextSwitches"`
	Created         uint64 `json:"processCreated"`
	Running         uint64 `json:"processesRunning"`
}

// SysMemory is in bytes. Swap is what is in use of it.
type SysMemory struct {
	Total     *uint64 `json:"total"`
	Free      *uint64 `json:"free"`
	Available *uint64 `json:"available"`
	Buffers   *uint64 `json:"buffers"`
	Cached    *uint64 `json:"cached"`
	Active    *uint64 `json:"active"`
	Inactive  *uint64 `json:"inactive"`
	Swap      *uint64 `json:"swap"`
	Dirty     *uint64 `json:"dirty"`
	Writeback *uint64 `json:"writeback"`
	Slab      *uint64 `json:"slab"`
}
