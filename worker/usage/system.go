package usage

import (
	"time"

	"github.com/prometheus/procfs"
)

// readSysCPU returns the time of the processors, nil if it is not known.
func readSysCPU() *SysCPU {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	st, err := fs.Stat()
	if err != nil {
		return nil
	}
	return sysCPU(st.CPUTotal)
}

func sysCPU(c procfs.CPUStat) *SysCPU {
	return &SysCPU{
		User: c.User, Nice: c.Nice, System: c.System, Idle: c.Idle, IOWait: c.Iowait, IRQ: c.IRQ,
		SoftIRQ: c.SoftIRQ, Steal: c.Steal, Guest: c.Guest, GuestNice: c.GuestNice,
	}
}

func (c *SysCPU) since(o *SysCPU) *SysCPU {
	return &SysCPU{
		User: c.User - o.User, Nice: c.Nice - o.Nice, System: c.System - o.System, Idle: c.Idle - o.Idle,
		IOWait: c.IOWait - o.IOWait, IRQ: c.IRQ - o.IRQ, SoftIRQ: c.SoftIRQ - o.SoftIRQ, Steal: c.Steal - o.Steal,
		Guest: c.Guest - o.Guest, GuestNice: c.GuestNice - o.GuestNice,
	}
}

// readSystem returns a sample of the machine, nil if there is no way to it.
func readSystem() *SysSample {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	s := &SysSample{Timestamp: time.Now().UTC()}
	if st, err := fs.Stat(); err == nil {
		s.CPU = sysCPU(st.CPUTotal)
		s.Processes = &Processes{ContextSwitches: st.ContextSwitches, Created: st.ProcessCreated, Running: st.ProcessesRunning}
	}
	if m, err := fs.Meminfo(); err == nil {
		s.Memory = &SysMemory{
			Total: m.MemTotalBytes, Free: m.MemFreeBytes, Available: m.MemAvailableBytes, Buffers: m.BuffersBytes,
			Cached: m.CachedBytes, Active: m.ActiveBytes, Inactive: m.InactiveBytes, Dirty: m.DirtyBytes,
			Writeback: m.WritebackBytes, Slab: m.SlabBytes,
		}
		if m.SwapTotalBytes != nil && m.SwapFreeBytes != nil {
			used := *m.SwapTotalBytes - *m.SwapFreeBytes
			s.Memory.Swap = &used
		}
	}
	s.CPUPressure = readPressure("/proc/pressure/cpu")
	s.MemoryPressure = readPressure("/proc/pressure/memory")
	s.IOPressure = readPressure("/proc/pressure/io")
	return s
}
