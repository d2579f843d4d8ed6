package ssh

import (
	"net"
	"os"
	"strings"

	"github.com/Microsoft/go-winio"
)

// agentPipe is where the system's own agent listens.
const agentPipe = `\\.\pipe\openssh-ssh-agent`

func defaultSocket() string {
	if p := os.Getenv("SSH_AUTH_SOCK"); p != "" {
		return p
	}
	return agentPipe
}

func isPipeName(path string) bool { return strings.HasPrefix(path, `\\.\pipe\`) }

func dial(path string) (net.Conn, error) {
	if isPipeName(path) {
		return winio.DialPipe(path, nil)
	}
	return net.Dial("unix", path)
}
