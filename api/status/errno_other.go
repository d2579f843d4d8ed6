//go:build !linux

package status

import "syscall"

func machineFault(syscall.Errno) bool { return false }
