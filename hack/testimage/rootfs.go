package testimage

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// made is the time of everything in an image.
var made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:App:/home/app:/bin/sh
other:x:1001:1002:Other:/home/other:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
`
	group = `root:x:0:
daemon:x:1:
wheel:x:10:app
staff:x:50:app,other
app:x:1000:
others:x:1002:
nogroup:x:65534:
`
	shadow = "root:*:::::::\n"
)

// directory, file, hardlink and symlink are entries of a layer, owned by root.

func directory(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}

func file(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}
}

func hardlink(name, to string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: mode}
}

func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

// layerWriter writes the tar stream of a layer; err is the first error.
type layerWriter struct {
	buf bytes.Buffer
	tar *tar.Writer
	err error
}

func newLayer() *layerWriter {
	w := &layerWriter{}
	w.tar = tar.NewWriter(&w.buf)
	return w
}

func (w *layerWriter) add(header tar.Header, data ...byte) *layerWriter {
	if w.err != nil {
		return w
	}
	header.Size, header.ModTime, header.Format = int64(len(data)), made, tar.FormatUSTAR
	if w.err = w.tar.WriteHeader(&header); w.err == nil {
		_, w.err = w.tar.Write(data)
	}
	return w
}

func (w *layerWriter) bytes() ([]byte, error) {
	if w.err == nil {
		w.err = w.tar.Close()
	}
	return w.buf.Bytes(), w.err
}

// busyboxLayer returns the tar stream of a root file system with the host's busybox under the name
// of each of its applets.
func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("install busybox-static: %w", err)
	}
	return busyboxTree(path)
}

// busyboxTree is busyboxLayer with the busybox at path, which may be for another processor: the
// applets are those of the host's.
func busyboxTree(path string) ([]byte, error) {
	if err := checkStatic(path); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	applets := strings.Fields(string(list))
	slices.Sort(applets)

	w := newLayer()
	for _, name := range []string{"bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var"} {
		switch name {
		case "root":
			w.add(directory(name, 0o700))
		case "tmp":
			w.add(directory(name, 0o1777))
		default:
			w.add(directory(name, 0o755))
		}
	}
	w.add(file("bin/busybox", 0o755), binary...)
	for _, applet := range applets {
		if applet != "busybox" {
			w.add(hardlink("bin/"+applet, "bin/busybox", 0o755))
		}
	}
	w.add(symlink("usr/bin/env", "/bin/env"))
	w.add(file("etc/passwd", 0o644), []byte(passwd)...)
	w.add(file("etc/group", 0o644), []byte(group)...)
	w.add(file("etc/shadow", 0o640), []byte(shadow)...)
	return w.bytes()
}

// checkStatic tells a busybox that needs libraries, which the image would not have.
func checkStatic(path string) error {
	binary, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer binary.Close()
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: install busybox-static", path)
		}
	}
	return nil
}
