package solver

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/status"
)

// fullBelow is how many free bytes of a disk count as none.
const fullBelow = 1 << 20

// nameFullDisk adds to the error of a build that the disk of the daemon is full, if that may be
// the reason: what a process says about it names a file of its own.
func (s *Solver) nameFullDisk(err error) error {
	if err == nil {
		return nil
	}
	var exit *status.ExitError
	if !errors.Is(err, unix.ENOSPC) && !errors.As(err, &exit) && !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
		return err
	}
	trees := s.cfg.Worker.Cache
	disk, derr := trees.Disk()
	if derr != nil || disk.Free >= fullBelow {
		return err
	}
	return fmt.Errorf("%w (the disk of the daemon at %s is full, it has %d bytes left: buildctl prune can make room)", err, trees.Dir(), disk.Free)
}
