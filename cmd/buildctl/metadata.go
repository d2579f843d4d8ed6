package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// writeMetadata writes the response of exporters as a JSON object.
func writeMetadata(path string, response map[string]string) error {
	out := make(map[string]any, len(response))
	for key, value := range response {
		out[key] = metadataValue(value)
	}
	dt, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomically(path, dt)
}

// metadataValue returns what a value stands for: some hold a JSON object in base64.
func metadataValue(value string) any {
	dt, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return value
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(dt, &object) != nil || len(object) == 0 {
		return value
	}
	return json.RawMessage(bytes.TrimSpace(dt))
}

// writeFileAtomically replaces a file, so that readers see all of it or nothing.
func writeFileAtomically(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o666), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
