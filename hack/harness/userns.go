package harness

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// firstID is what id 0 of a user namespace is outside.
const firstID = 100_000

// userNamespace starts a process as root of a user namespace, with mounts of its own.
func userNamespace() *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
}

// programOfUser gives all that is the daemon's to the root of the user namespace, with a program of
// its own: it may not read the source tree. A restart finds that done.
func (d *Daemon) programOfUser(tb testing.TB) string {
	tb.Helper()
	program := filepath.Join(d.dir, "buildkitd")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if out, err := exec.Command("cp", filepath.Join(d.bin, "buildkitd"), program).CombinedOutput(); err != nil {
		tb.Fatalf("copy buildkitd: %v\n%s", err, out)
	}
	err := filepath.WalkDir(d.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, firstID, firstID)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return program
}
