package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Source says where a secret comes from. If neither FilePath nor Env is set, it is the environment
// variable named ID if there is one, else the file named ID.
type Source struct {
	ID       string
	FilePath string
	Env      string
}

// Store finds secrets in files and environment variables. It reads them when asked.
type Store struct {
	sources map[string]Source
}

// NewStore checks that the sources have ids, and that their files are there and not too big.
func NewStore(sources []Source) (*Store, error) {
	s := &Store{sources: map[string]Source{}}
	for _, src := range sources {
		if src.ID == "" {
			return nil, errNoID
		}
		if src.Env == "" && src.FilePath == "" {
			if _, ok := os.LookupEnv(src.ID); ok {
				src.Env = src.ID
			} else {
				src.FilePath = src.ID
			}
		}
		if src.FilePath != "" {
			info, err := os.Stat(src.FilePath)
			if err != nil {
				return nil, fmt.Errorf("secret %s: %w", src.ID, err)
			}
			if info.Size() > MaxSize {
				return nil, tooBig(src.ID)
			}
		}
		s.sources[src.ID] = src
	}
	return s, nil
}

// Get reads a secret.
func (s *Store) Get(_ context.Context, id string) ([]byte, error) {
	src, ok := s.sources[id]
	if !ok {
		return nil, &NotFoundError{ID: id}
	}
	if src.Env != "" {
		return []byte(os.Getenv(src.Env)), nil
	}
	f, err := os.Open(src.FilePath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{ID: id}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		return nil, tooBig(id)
	}
	return data, err
}

// Values is a Getter of secrets in memory.
type Values map[string][]byte

// Get returns a secret.
func (v Values) Get(_ context.Context, id string) ([]byte, error) {
	data, ok := v[id]
	if !ok {
		return nil, &NotFoundError{ID: id}
	}
	return data, nil
}
