package network

import (
	"fmt"
	"os"
	"runtime"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/usage"
)

// Meter returns a function that counts what goes through the interfaces of the namespace from now on, until it
// is given back. It is nil for a namespace that has none of its own: the host's, and those that the runtime
// makes.
func (n Namespace) Meter() func() *usage.Network {
	if n.Path == "" {
		return nil
	}
	before, err := traffic(n.Path)
	if err != nil {
		return nil
	}
	return func() *usage.Network {
		now, err := traffic(n.Path)
		if err != nil {
			return nil
		}
		return now.Since(before)
	}
}

// traffic returns what all interfaces but loopback have counted in the namespace at a path.
func traffic(path string) (*usage.Network, error) {
	target, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	var sum *usage.Network
	err = within(target, func() (err error) {
		sum, err = countInterfaces()
		return err
	})
	return sum, err
}

// within calls fn on a thread that is in a network namespace.
func within(namespace *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = fn()
		// A thread that cannot get back stays locked, so it ends with the goroutine.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// countInterfaces adds up the interfaces that the thread sees.
func countInterfaces() (*usage.Network, error) {
	fs, err := procfs.NewFS("/proc/thread-self")
	if err != nil {
		return nil, err
	}
	devices, err := fs.NetDev()
	if err != nil {
		return nil, err
	}
	var sum usage.Network
	for name, d := range devices {
		if name == "lo" {
			continue
		}
		sum.RxBytes += int64(d.RxBytes)
		sum.RxPackets += int64(d.RxPackets)
		sum.RxErrors += int64(d.RxErrors)
		sum.RxDropped += int64(d.RxDropped)
		sum.TxBytes += int64(d.TxBytes)
		sum.TxPackets += int64(d.TxPackets)
		sum.TxErrors += int64(d.TxErrors)
		sum.TxDropped += int64(d.TxDropped)
	}
	return &sum, nil
}
