package catalog

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// magics begin the programs that can be Go's: ELF, Mach-O in two byte orders and PE.
var magics = []string{"\x7fELF", "\xfe\xed\xfa", "\xcf\xfa\xed\xfe", "\xce\xfa\xed\xfe", "MZ"}

// parseGo reads the build information of a Go program. Files that are none tell nothing.
func parseGo(f *io.SectionReader, add func(Package) error) error {
	begin := make([]byte, 4)
	if n, _ := f.ReadAt(begin, 0); n < len(begin) || !isProgram(string(begin)) {
		return nil
	}
	info, err := buildInfo(f)
	if err != nil {
		return nil //nolint:nilerr // the error of a program that is not Go's is the same as that of a damaged one
	}
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	if err := add(Package{Type: Go, Name: "stdlib", Version: goVersion, License: "BSD-3-Clause"}); err != nil {
		return err
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path == "" {
			continue
		}
		version := m.Version
		if version == "(devel)" {
			version = ""
		}
		if err := add(Package{Type: Go, Name: m.Path, Version: version}); err != nil {
			return err
		}
	}
	return nil
}

func isProgram(begin string) bool {
	for _, m := range magics {
		if strings.HasPrefix(begin, m) {
			return true
		}
	}
	return false
}

// buildInfo reads build information. The readers of the standard library are made for programs that
// one trusts: what they make of others is an error too.
func buildInfo(f io.ReaderAt) (info *buildinfo.BuildInfo, err error) {
	defer func() {
		if r := recover(); r != nil {
			info, err = nil, fmt.Errorf("damaged program: %v", r)
		}
	}()
	return buildinfo.Read(f)
}
