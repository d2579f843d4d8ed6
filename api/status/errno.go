package status

import (
	"syscall"

	"google.golang.org/grpc/codes"
)

// errnoCode returns the code of the errors of the system that say something about the machine
// rather than about what was asked.
func errnoCode(errno syscall.Errno) codes.Code {
	switch errno {
	case syscall.ENOMEM, syscall.ENOSPC:
		return codes.ResourceExhausted
	case syscall.EIO, syscall.EFAULT:
		return codes.Internal
	}
	if machineFault(errno) {
		return codes.Internal
	}
	return codes.Unknown
}
