//go:build !windows && !linux

package filesync

import (
	"errors"

	"github.com/tonistiigi/fsutil/types"
)

// mknodAt is not there on all systems; what it would make is left out.
func mknodAt(int, string, uint32, int) error { return errors.ErrUnsupported }

func setXattrsAt(int, string, *types.Stat) error { return nil }

func dropXattrs(int, *types.Stat) error { return nil }
