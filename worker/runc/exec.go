package runc

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const processFile = "process.json"

// execDir is the folder of one exec beside its container's files.
type execDir struct{ dir string }

func newExec(bundle string, p *specs.Process) (*execDir, error) {
	dir, err := os.MkdirTemp(bundle, "exec-")
	if err != nil {
		return nil, err
	}
	e := &execDir{dir: dir}
	data, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(e.path(processFile), data, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, e.remove())
	}
	return e, nil
}

func (e *execDir) path(name string) string { return filepath.Join(e.dir, name) }

func (e *execDir) remove() error { return os.RemoveAll(e.dir) }

// acquire counts an exec in the container. It reports false if the container has ended.
func (ct *container) acquire() bool {
	ct.mu.Lock()
	defer ct.mu.Unlock()
	if ct.ended {
		return false
	}
	ct.execs.Add(1)
	return true
}

// end lets no exec begin any more and waits for those that have.
func (ct *container) end() {
	ct.mu.Lock()
	if !ct.ended {
		ct.ended = true
		close(ct.done)
	}
	ct.mu.Unlock()
	ct.execs.Wait()
}
