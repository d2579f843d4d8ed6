package platform

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// probeTimeout is how long a program may take that does nothing.
const probeTimeout = 5 * time.Second

// prober tries programs in a folder that they are shut into, as a container's are.
type prober struct{ dir string }

// runs tells whether programs of an architecture can be executed here.
func (p prober) runs(a *architecture) bool {
	dir, err := os.MkdirTemp(p.dir, "probe-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	const name = "program"
	if err := os.WriteFile(filepath.Join(dir, name), a.program(), 0o500); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "/"+name)
		cmd.Dir = "/"
		cmd.Env = []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Setpgid: true}
		err := cmd.Run()
		if !errors.Is(err, syscall.ETXTBSY) {
			return err == nil
		}
		// A process that was started while the file was written has it open until it executes
		// another program, in a moment.
		retry := time.NewTimer(time.Millisecond)
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
	return false
}
