package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// SyntaxError says where a file cannot be read.
type SyntaxError struct {
	Path string
	Err  *toml.DecodeError
}

// Error is that of the decoder.
func (e *SyntaxError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the decoder.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Where names the file and line and shows the lines around it.
func (e *SyntaxError) Where() string {
	line, column := e.Err.Position()
	return fmt.Sprintf("failed to parse config %s:%d:%d\n%s", e.Path, line, column, e.Err.String())
}

// UnknownKey is a key of a file that means nothing.
type UnknownKey struct {
	Path, Key string
	Line      int
	// Nearest is the known key that is most like it.
	Nearest string
}

func (k UnknownKey) String() string {
	return fmt.Sprintf("%s:%d: unknown key %s, did you mean %s?", k.Path, k.Line, k.Key, k.Nearest)
}

// Load reads a file. One that is not there is an empty one. Unknown keys do not keep the others
// from being read. A file that is no TOML, or has a value of the wrong kind, is a *SyntaxError.
func Load(path string) (*Config, []UnknownKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{}, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read config: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the content of a file; path is only told in errors.
func Parse(path string, data []byte) (*Config, []UnknownKey, error) {
	cfg := &Config{}
	err := toml.NewDecoder(strings.NewReader(string(data))).DisallowUnknownFields().Decode(cfg)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		return cfg, unknownKeys(path, missing), nil
	}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		return nil, nil, &SyntaxError{Path: path, Err: syntax}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("failed to parse config %s: %w", path, err)
	}
	return cfg, nil, nil
}

func unknownKeys(path string, missing *toml.StrictMissingError) []UnknownKey {
	out := make([]UnknownKey, len(missing.Errors))
	for i := range missing.Errors {
		e := &missing.Errors[i]
		line, _ := e.Position()
		out[i] = UnknownKey{Path: path, Key: dotted(e.Key()), Line: line, Nearest: nearest(e.Key())}
	}
	return out
}
