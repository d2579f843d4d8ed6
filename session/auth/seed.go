package auth

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/gofrs/flock"
)

const (
	seedFile = ".token_seed"
	seedSize = 16 // bytes
)

// seedStore keeps a random seed per registry host, in a file of JSON that programs share.
type seedStore struct {
	dir string

	mu    sync.Mutex
	known map[string]seed
}

type seed struct {
	Seed []byte
}

func newSeedStore(dir string) *seedStore {
	return &seedStore{dir: dir, known: map[string]seed{}}
}

// get returns the seed of a host, a new one if there is none.
func (s *seedStore) get(host string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.known[host]; ok {
		return v.Seed, nil
	}
	v, err := s.load(host)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errNoDir) || errors.Is(err, syscall.EROFS) {
		v, err = newSeed()
	}
	if err != nil {
		return nil, fmt.Errorf("token seed for %s: %w", host, err)
	}
	s.known[host] = v
	return v.Seed, nil
}

var errNoDir = errors.New("no directory")

// load reads the seed of a host from the file, and adds it there if need be.
func (s *seedStore) load(host string) (seed, error) {
	if s.dir == "" {
		return seed{}, errNoDir
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return seed{}, err
	}
	lock := flock.New(filepath.Join(s.dir, seedFile+".lock"))
	if err := lock.Lock(); err != nil {
		return seed{}, err
	}
	defer func() { _ = lock.Unlock() }()
	path := filepath.Join(s.dir, seedFile)
	all, err := readSeeds(path)
	if err != nil {
		return seed{}, err
	}
	if v, ok := all[host]; ok && len(v.Seed) > 0 {
		return v, nil
	}
	v, err := newSeed()
	if err != nil {
		return seed{}, err
	}
	all[host] = v
	return v, writeSeeds(path, all)
}

// readSeeds reads the file. One that is not there, or makes no sense, is empty.
func readSeeds(path string) (map[string]seed, error) {
	all := map[string]seed{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(data, &all) != nil || all == nil {
		return map[string]seed{}, nil //nolint:nilerr // seeds that are lost are made anew
	}
	return all, nil
}

func writeSeeds(path string, all map[string]seed) error {
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	temp := path + ".tmp"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func newSeed() (seed, error) {
	b := make([]byte, seedSize)
	_, err := rand.Read(b)
	return seed{Seed: b}, err
}
