//go:build !windows

package connhelper

import "errors"

func npipe(string) (Dialer, error) {
	return nil, errors.New("npipe connections are only supported on windows")
}
