package catalog

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// maxRelease is how much of os-release is read, in bytes.
const maxRelease = 64 << 10

// readSystem reads os-release(5).
func readSystem(root *os.Root) System {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if st, err := root.Stat(name); err != nil || !st.Mode().IsRegular() {
			continue
		}
		f, err := root.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		return parseRelease(f)
	}
	return System{}
}

func parseRelease(r io.Reader) System {
	var s System
	for lines := bufio.NewScanner(io.LimitReader(r, maxRelease)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		if len(value) > maxField {
			continue
		}
		switch strings.TrimSpace(key) {
		case "ID":
			s.ID = value
		case "VERSION_ID":
			s.VersionID = value
		case "PRETTY_NAME":
			s.Name = value
		}
	}
	return s
}
