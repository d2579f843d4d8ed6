package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/session/filesync"
)

// openLocals opens the directories of --local by their names. The returned function closes them.
func openLocals(values []string) (map[string]fsutil.FS, func(), error) {
	var opened []*filesync.LocalFS
	release := func() {
		for _, dir := range opened {
			dir.Close()
		}
	}
	dirs := map[string]fsutil.FS{}
	for _, value := range values {
		name, path, ok := strings.Cut(value, "=")
		if !ok {
			release()
			return nil, nil, invalidValue(value)
		}
		dir, err := openLocal(path)
		if err != nil {
			release()
			return nil, nil, err
		}
		opened = append(opened, dir)
		dirs[name] = dir
	}
	return dirs, release, nil
}

func openLocal(path string) (*filesync.LocalFS, error) {
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: syscall.ENOTDIR}
	}
	return filesync.NewFS(path)
}

// sharedKey tells the daemon which builds see the same files: those from one directory of one
// host. It says nothing of either.
func sharedKey() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(host + "\x00" + dir))
	return hex.EncodeToString(sum[:])
}
