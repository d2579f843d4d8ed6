package connhelper

import (
	"context"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
)

func npipe(address string) (Dialer, error) {
	pipe := strings.ReplaceAll(strings.TrimPrefix(address, "npipe://"), "/", `\`)
	return func(ctx context.Context) (net.Conn, error) { return winio.DialPipeContext(ctx, pipe) }, nil
}
