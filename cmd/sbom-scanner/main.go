// Command sbom-scanner is a small scanner for software bills of materials: a builder runs it in a
// container on a built tree, and it writes which packages are installed there, as SPDX 2.3 in in-toto
// statements. It is an example of the protocol, for builds that cannot fetch a larger scanner, and
// replaced with --opt attest:sbom=generator=IMAGE.
//
// It takes no arguments; the environment names what to scan and where to write:
//
//	BUILDKIT_SCAN_SOURCE             a folder, the result
//	BUILDKIT_SCAN_SOURCE_EXTRAS      optional: a folder of more folders, stages and contexts
//	BUILDKIT_SCAN_DESTINATION        an existing folder; one NAME.spdx.json is written a scanned folder
//	BUILDKIT_SCAN_SOURCE_DATE_EPOCH  optional: seconds since 1970, the time of the documents
//
// Nothing outside these folders is read, whatever links the trees hold. The network is not used.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/catalog"
	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/document"
)

const (
	envSource      = "BUILDKIT_SCAN_SOURCE"
	envExtras      = "BUILDKIT_SCAN_SOURCE_EXTRAS"
	envDestination = "BUILDKIT_SCAN_DESTINATION"
	envEpoch       = "BUILDKIT_SCAN_SOURCE_DATE_EPOCH"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(version.Line("sbom-scanner"))
		return
	}
	if err := run(os.Getenv, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

// run scans what the environment names. What could not be read is said on log and in the documents.
func run(env func(string) string, log io.Writer) error {
	for _, name := range []string{envSource, envDestination} {
		if env(name) == "" {
			return fmt.Errorf("%s is not set: the scanner is run by a build with --opt attest:sbom", name)
		}
	}
	created, err := created(env(envEpoch))
	if err != nil {
		return err
	}
	trees, err := extras(env(envExtras))
	if err != nil {
		return err
	}
	dest, err := os.OpenRoot(env(envDestination))
	if err != nil {
		return err
	}
	defer dest.Close()
	for _, dir := range append([]string{env(envSource)}, trees...) {
		if err := scan(dest, dir, created, log); err != nil {
			return fmt.Errorf("scan %s: %w", dir, err)
		}
	}
	return nil
}

func created(epoch string) (time.Time, error) {
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid %s: %s", envEpoch, epoch)
	}
	return time.Unix(seconds, 0), nil
}

// extras returns the folders in dir, in order.
func extras(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}

// scan writes the document about one folder.
func scan(dest *os.Root, dir string, created time.Time, log io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	found, err := catalog.Scan(root, catalog.Limits{})
	if err != nil {
		return err
	}
	name := filepath.Base(dir)
	for _, w := range found.Unread {
		fmt.Fprintf(log, "%s: not read: %s\n", name, w)
	}
	data, err := document.Statement(found, document.Options{
		Name: name, Created: created, Tool: "sbom-scanner-" + version.Version,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "%s: %d packages\n", name, len(found.Packages))
	f, err := dest.OpenFile(name+".spdx.json", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
