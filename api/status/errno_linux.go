package status

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func machineFault(errno syscall.Errno) bool {
	return errno == syscall.ENOTRECOVERABLE || errno == unix.EHWPOISON
}
