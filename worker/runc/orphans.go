package runc

import (
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// adoptOrphans makes processes below ours whose parent has ended children of ours. So a process of a
// container, which the OCI runtime leaves behind, can be waited for.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of containers: %w", err)
	}
	return nil
}

// reapOrphans takes note of the end of adopted processes that nobody waits for: those that containers
// without a PID namespace have left. They are in the sessions of their containers, which the daemon's own
// commands are not, and whose leaders are waited for.
func reapOrphans() error {
	self := os.Getpid()
	session, err := unix.Getsid(self)
	if err != nil {
		return err
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range all {
		st, err := p.Stat()
		if err != nil { // it has gone
			continue
		}
		if st.PPID != self || st.State != "Z" || st.Session == session || st.Session == st.PID {
			continue
		}
		if _, err := unix.Wait4(st.PID, nil, unix.WNOHANG, nil); err != nil && !errors.Is(err, unix.ECHILD) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
