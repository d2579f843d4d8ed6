package cache

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// tidying frees the space of what has been removed, behind the scenes and one at a time.
type tidying struct {
	mu sync.Mutex
	// wanted and content say what the next turn has to do.
	wanted, content bool
	running         bool
	// turn is held while space is being freed.
	turn sync.Mutex
}

// tidyLater has the space of removed snapshots freed soon, and that of content too.
func (m *Manager) tidyLater(content bool) {
	m.tidying.mu.Lock()
	defer m.tidying.mu.Unlock()
	m.tidying.wanted = true
	m.tidying.content = m.tidying.content || content
	if m.tidying.running || !m.begin() {
		return
	}
	m.tidying.running = true
	go func() {
		defer m.running.Done()
		for {
			m.tidying.mu.Lock()
			content := m.tidying.content
			if !m.tidying.wanted || m.background.Err() != nil {
				m.tidying.running = false
				m.tidying.mu.Unlock()
				return
			}
			m.tidying.wanted, m.tidying.content = false, false
			m.tidying.mu.Unlock()
			if err := m.tidy(m.background, content); err != nil && m.background.Err() == nil {
				log.L.WithError(err).Error("space of removed cache records is not free yet")
			}
		}
	}()
}

// begin counts one more work behind the scenes unless the manager is closed. The one that began it
// calls m.running.Done.
func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running.Add(1)
	return true
}

// tidy frees the space of what has been removed and returns when it is free.
func (m *Manager) tidy(ctx context.Context, content bool) error {
	m.tidying.turn.Lock()
	defer m.tidying.turn.Unlock()
	err := m.snapshots.Cleanup(ctx)
	if content {
		_, gcErr := m.meta.GarbageCollect(namespaced(ctx))
		err = errors.Join(err, gcErr)
	}
	return err
}

// syncing brings the files of new trees to disk behind the scenes. Until that is done their
// records say so: after a power failure they are not believed, while a crash of this process
// alone does no harm.
type syncing struct {
	timer *time.Timer
}

// syncDelay is how long files may be in memory only; the kernel writes them by itself after 30 s.
const syncDelay = 10 * time.Second

// syncLater is called when a record has files that are not on disk. The caller holds mu.
func (m *Manager) syncLater() {
	if m.syncing.timer != nil || m.closed {
		return
	}
	m.syncing.timer = time.AfterFunc(syncDelay, func() {
		if !m.begin() {
			return
		}
		defer m.running.Done()
		m.mu.Lock()
		m.syncing.timer = nil
		m.mu.Unlock()
		if err := m.syncRecords(); err != nil {
			log.L.WithError(err).Error("cache files are not on disk yet, trying again")
			m.mu.Lock()
			m.syncLater()
			m.mu.Unlock()
		}
	})
}

// syncRecords brings all files to disk and notes that in the records they belong to.
func (m *Manager) syncRecords() error {
	m.mu.Lock()
	if m.syncing.timer != nil {
		m.syncing.timer.Stop()
		m.syncing.timer = nil
	}
	dirty := map[*record]int{}
	for _, r := range m.records {
		if r.state.Boot != "" && !r.state.Writing {
			dirty[r] = r.writes
		}
	}
	m.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	if err := syncFS(m.dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for r, writes := range dirty {
		if !r.gone && r.writes == writes {
			r.state.Boot = ""
			m.put(r)
		}
	}
	return nil
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

// bootID names this run of the machine.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}
