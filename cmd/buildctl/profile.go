package main

import (
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"

	"github.com/spf13/pflag"
)

// profileFlags are hidden flags with the paths of Go profiles.
type profileFlags struct {
	cpu, memory, block, mutex, trace string
	memoryRate                       int
}

func (p *profileFlags) register(f *pflag.FlagSet) {
	f.StringVar(&p.cpu, "profile-cpu", "", "write a CPU profile to a file")
	f.StringVar(&p.memory, "profile-memory", "", "write a heap profile to a file")
	f.IntVar(&p.memoryRate, "profile-memoryrate", runtime.MemProfileRate, "bytes allocated for each sample of the heap profile")
	f.StringVar(&p.block, "profile-block", "", "write a profile of blocking to a file")
	f.StringVar(&p.mutex, "profile-mutex", "", "write a profile of mutex contention to a file")
	f.StringVar(&p.trace, "profile-trace", "", "write an execution trace to a file")
	f.VisitAll(func(flag *pflag.Flag) {
		if len(flag.Name) > 8 && flag.Name[:8] == "profile-" {
			flag.Hidden = true
		}
	})
}

// start begins what was asked for. The returned function ends it and writes the files.
func (p *profileFlags) start() (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for i := len(stops) - 1; i >= 0; i-- {
			errs = append(errs, stops[i]())
		}
		return errors.Join(errs...)
	}
	if p.cpu != "" {
		f, err := os.Create(p.cpu)
		if err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		stops = append(stops, func() error { pprof.StopCPUProfile(); return f.Close() })
	}
	if p.trace != "" {
		f, err := os.Create(p.trace)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		if err := trace.Start(f); err != nil {
			return nil, errors.Join(err, f.Close(), stop())
		}
		stops = append(stops, func() error { trace.Stop(); return f.Close() })
	}
	if p.memory != "" {
		runtime.MemProfileRate = p.memoryRate
		stops = append(stops, func() error { return writeProfile("heap", p.memory) })
	}
	if p.block != "" {
		runtime.SetBlockProfileRate(1)
		stops = append(stops, func() error { return writeProfile("block", p.block) })
	}
	if p.mutex != "" {
		runtime.SetMutexProfileFraction(1)
		stops = append(stops, func() error { return writeProfile("mutex", p.mutex) })
	}
	return stop, nil
}

func writeProfile(name, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}
