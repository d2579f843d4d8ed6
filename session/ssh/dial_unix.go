//go:build !windows

package ssh

import (
	"net"
	"os"
)

func defaultSocket() string { return os.Getenv("SSH_AUTH_SOCK") }

func isPipeName(string) bool { return false }

func dial(path string) (net.Conn, error) { return net.Dial("unix", path) }
