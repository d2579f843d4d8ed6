package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Duration is a time span: a string such as "48h" or an integer of seconds.
type Duration struct{ time.Duration }

// UnmarshalText reads either form.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		if seconds < 0 || seconds > math.MaxInt64/int64(time.Second) {
			return fmt.Errorf("%s seconds are out of range", s)
		}
		d.Duration = time.Duration(seconds) * time.Second
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is neither a duration nor seconds", s)
	}
	if v < 0 {
		return fmt.Errorf("duration %s is negative", s)
	}
	d.Duration = v
	return nil
}

// Switch is true, false, or auto: the daemon finds out. The zero value is auto.
type Switch struct{ value string }

// The positions of a Switch.
var (
	Auto = Switch{}
	On   = Switch{"true"}
	Off  = Switch{"false"}
)

// String returns auto, true or false.
func (s Switch) String() string {
	if s == Auto {
		return "auto"
	}
	return s.value
}

// UnmarshalText reads auto or a boolean.
func (s *Switch) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*s = Auto
		return nil
	}
	on, err := strconv.ParseBool(string(text))
	if err != nil {
		return fmt.Errorf("%q is neither auto nor a boolean", text)
	}
	*s = Off
	if on {
		*s = On
	}
	return nil
}

// DiskSpace is an amount of storage: bytes, or a share of all there is. The zero value is 0.
type DiskSpace struct {
	Bytes int64
	// Percent is not 0 for a share.
	Percent int64
}

// UnmarshalText reads an integer of bytes, a number with a unit of 1024 ("512MB"), or a share
// ("20%").
func (d *DiskSpace) UnmarshalText(text []byte) error {
	s := string(text)
	if share, ok := strings.CutSuffix(s, "%"); ok {
		percent, err := strconv.ParseInt(share, 10, 64)
		if err != nil || percent < 0 || percent > 100 {
			return fmt.Errorf("%q is no share between 0%% and 100%%", s)
		}
		*d = DiskSpace{Percent: percent}
		return nil
	}
	if bytes, err := strconv.ParseInt(s, 10, 64); err == nil {
		if bytes < 0 {
			return fmt.Errorf("disk space %s is negative", s)
		}
		*d = DiskSpace{Bytes: bytes}
		return nil
	}
	bytes, err := units.RAMInBytes(s)
	if err != nil || bytes < 0 {
		return fmt.Errorf("%q is no disk space: want bytes, a size such as 512MB, or a share such as 20%%", s)
	}
	*d = DiskSpace{Bytes: bytes}
	return nil
}

// unknownDisk is what a share amounts to if the size of the file system is not known.
const unknownDisk = 2e9

// Of returns the space in bytes on a file system of total bytes, 0 if that is not known. Shares
// are rounded up to whole GB.
func (d DiskSpace) Of(total int64) int64 {
	if d.Percent == 0 {
		return d.Bytes
	}
	if total <= 0 {
		return unknownDisk
	}
	const gib = 1 << 30
	return (d.exactly(total)/gib + 1) * 1e9
}

// OfMemory returns the space in bytes if total is all the memory there is.
func (d DiskSpace) OfMemory(total int64) int64 {
	if d.Percent == 0 {
		return d.Bytes
	}
	return d.exactly(total)
}

func (d DiskSpace) exactly(total int64) int64 { return total / 100 * d.Percent }
