package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	csvvalue "github.com/tonistiigi/go-csvvalue"
	"golang.org/x/term"

	"github.com/openbuildkit/buildkit/client"
)

// parseCSV reads fields of the form key=value. Keys become lower-case, but for what follows the
// first dot in the key of an annotation.
func parseCSV(text string) (map[string]string, error) {
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return nil, err
	}
	attrs := make(map[string]string, len(fields))
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, invalidValue(field)
		}
		attrs[lowerKey(key)] = value
	}
	return attrs, nil
}

func lowerKey(key string) string {
	lower := strings.ToLower(key)
	if at := strings.IndexByte(key, '.'); at > 0 && strings.HasPrefix(lower, "annotation") {
		return lower[:at] + key[at:]
	}
	return lower
}

// parseOutputs reads the values of --output. Output without a file goes to stdout.
func parseOutputs(values []string, stdout *os.File) ([]client.Export, error) {
	var out []client.Export
	taken := files{}
	for _, value := range values {
		e, err := parseOutput(value, stdout, taken)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// files are those that outputs are written to, by path; stdout has none.
type files map[string]bool

// take says that a file gets an output. It cannot have two.
func (f files) take(path, name string) error {
	if f[path] {
		return fmt.Errorf("more than one output is written to %s", name)
	}
	f[path] = true
	return nil
}

func parseOutput(value string, stdout *os.File, taken files) (client.Export, error) {
	attrs, err := parseCSV(value)
	if err != nil {
		return client.Export{}, err
	}
	if attrs["type"] == "" {
		return client.Export{}, errors.New("--output requires type=<type>")
	}
	if v, ok := attrs["output"]; ok {
		return client.Export{}, fmt.Errorf("output=%s not supported for --output, you meant dest=%s?", v, v)
	}
	e := client.Export{Type: attrs["type"], Attrs: attrs}
	delete(attrs, "type")
	if err := setDestination(&e, stdout, taken); err != nil {
		return client.Export{}, fmt.Errorf("invalid output option: output: %w", err)
	}
	return e, nil
}

// setDestination takes dest out of the attributes.
func setDestination(e *client.Export, stdout *os.File, taken files) error {
	dest, given := e.Attrs["dest"]
	delete(e.Attrs, "dest")
	asFile := true
	switch e.Type {
	case client.ExporterLocal:
		asFile = false
	case client.ExporterTar:
	case client.ExporterOCI, client.ExporterDocker:
		if v, ok := e.Attrs["tar"]; ok {
			var err error
			if asFile, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("non-bool value specified for tar: %w", err)
			}
		}
	default:
		if given {
			return fmt.Errorf("output %s is not supported by %s exporter", dest, e.Type)
		}
		return nil
	}
	if !asFile {
		if dest == "" {
			return fmt.Errorf("output directory is required for %s exporter", e.Type)
		}
		e.OutputDir = dest
		return nil
	}
	if dest == "" || dest == "-" {
		if term.IsTerminal(int(stdout.Fd())) {
			return fmt.Errorf("output file is required for %s exporter. refusing to write to console", e.Type)
		}
		e.Output = func(map[string]string) (io.WriteCloser, error) { return keepOpen{stdout}, nil }
		return taken.take("", "stdout")
	}
	st, err := os.Stat(dest)
	switch {
	case err == nil && st.IsDir():
		return errors.New("destination file is a directory")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("invalid destination file: %s: %w", dest, err)
	case err != nil && !isFolder(filepath.Dir(dest)):
		return fmt.Errorf("invalid destination file: %s: there is no folder %s", dest, filepath.Dir(dest))
	case err != nil || st.Mode().IsRegular():
		path, err := filepath.Abs(dest)
		if err != nil {
			return err
		}
		if err := taken.take(path, dest); err != nil {
			return err
		}
	}
	e.Output = func(map[string]string) (io.WriteCloser, error) { return createOutput(dest) }
	return nil
}

func isFolder(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// keepOpen is a file that the output does not close.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// outputFile is removed if not all of it has come.
type outputFile struct {
	*os.File
	regular bool
}

func createOutput(path string) (*outputFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &outputFile{f, st.Mode().IsRegular()}, nil
}

// CloseWithError ends an output that has failed.
func (o *outputFile) CloseWithError(error) error {
	err := o.Close()
	if o.regular {
		err = errors.Join(err, os.Remove(o.Name()))
	}
	return err
}
