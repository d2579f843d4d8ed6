package catalog

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxText is how much of a database of text is read, in bytes.
const maxText = 256 << 20

// eachRecord calls fn with the named fields of each group of "key:value" lines; empty lines stand
// between groups. Lines that go on with those before are passed over, and values that are longer
// than can be told are kept so long that they are refused. It ends at the first group if only that
// counts, or when fn fails.
func eachRecord(r io.Reader, keys []string, first bool, fn func(map[string]string) error) error {
	limited := &io.LimitedReader{R: r, N: maxText + 1}
	lines := bufio.NewReaderSize(limited, 4096)
	wanted := make(map[string]bool, len(keys))
	for _, k := range keys {
		wanted[k] = true
	}
	fields := map[string]string{}
	flush := func() error {
		if len(fields) == 0 {
			return nil
		}
		err := fn(fields)
		fields = map[string]string{}
		return err
	}
	for {
		line, err := readLine(lines)
		if limited.N == 0 {
			return errors.New("the file is too large")
		}
		trimmed := bytes.TrimRight(line, "\r\n")
		if len(trimmed) == 0 {
			if ferr := flush(); ferr != nil {
				return ferr
			}
			if first && err == nil {
				return nil
			}
		} else if key, value, ok := strings.Cut(string(trimmed), ":"); ok && wanted[key] {
			if _, twice := fields[key]; !twice {
				fields[key] = strings.TrimSpace(value)
			}
		}
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
	}
}

// readLine returns a line, or the beginning of one that is longer than the reader's buffer.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	line = bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return line, err
}

// parseDpkg reads the database of dpkg, or one package of a distroless image, see deb-control(5).
func parseDpkg(f *io.SectionReader, add func(Package) error) error {
	keys := []string{"Package", "Status", "Version", "Architecture", "Source"}
	return eachRecord(f, keys, false, func(fields map[string]string) error {
		// "want flag state"
		if status := strings.Fields(fields["Status"]); len(status) == 3 && status[2] != "installed" {
			return nil
		}
		source, _, _ := strings.Cut(fields["Source"], " ")
		if source == fields["Package"] {
			source = ""
		}
		return add(Package{Type: Deb, Name: fields["Package"], Version: fields["Version"], Arch: fields["Architecture"], Source: source})
	})
}

// parseAPK reads the database of apk, see https://wiki.alpinelinux.org/wiki/Apk_spec.
func parseAPK(f *io.SectionReader, add func(Package) error) error {
	return eachRecord(f, []string{"P", "V", "A", "L", "o"}, false, func(fields map[string]string) error {
		source := fields["o"]
		if source == fields["P"] {
			source = ""
		}
		return add(Package{Type: APK, Name: fields["P"], Version: fields["V"], Arch: fields["A"], License: fields["L"], Source: source})
	})
}

// parsePython reads the core metadata of a package, see
// https://packaging.python.org/en/latest/specifications/core-metadata/.
func parsePython(f *io.SectionReader, add func(Package) error) error {
	keys := []string{"Name", "Version", "License", "License-Expression"}
	return eachRecord(f, keys, true, func(fields map[string]string) error {
		license := fields["License-Expression"]
		// Many put the whole text here, of which there is only the first line.
		if license == "" && len(fields["License"]) <= maxField {
			license = fields["License"]
		}
		return add(Package{Type: Python, Name: fields["Name"], Version: fields["Version"], License: license})
	})
}
