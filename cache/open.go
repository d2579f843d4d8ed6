package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/continuity"
	"golang.org/x/sync/semaphore"

	"github.com/openbuildkit/buildkit/cache/internal/recordstore"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

const (
	// stateFolder is the folder below Config.Root that belongs to this package.
	stateFolder = "cache"
	// stateVersion is raised when the layout below that folder changes.
	stateVersion = "1"
	// Namespace is containerd's namespace of all content and leases.
	Namespace = "buildkit"
	// defaultFetches is how many blobs are fetched at a time.
	defaultFetches = 6
)

// Config is how a cache is opened.
type Config struct {
	// Root is the folder below which the state is kept, in a folder of its own. Nothing else
	// below Root is read or changed.
	Root string
	// Snapshotter is snapshot.Auto if empty.
	Snapshotter string
	// MaxFetches is how many blobs are fetched at a time; 0 stands for the default.
	MaxFetches int
}

// Open opens the cache below cfg.Root, or makes one. Records whose bytes did not survive a crash
// are dropped, and what no record stands for is removed, in part after Open has returned.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	return open(ctx, cfg, bootID())
}

// open opens the cache in the run of the machine that boot names.
func open(ctx context.Context, cfg Config, boot string) (_ *Manager, err error) {
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, stateFolder)
	if err := claim(dir); err != nil {
		return nil, err
	}
	if cfg.MaxFetches <= 0 {
		cfg.MaxFetches = defaultFetches
	}
	m := &Manager{
		dir:     dir,
		boot:    boot,
		records: map[string]*record{},
		layers:  map[layerKey]*record{},
		index:   map[indexKey]map[string]*record{},
		flights: map[string]*flight{},
		fetches: semaphore.NewWeighted(int64(cfg.MaxFetches)),
		unpacks: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		making:  semaphore.NewWeighted(maxMade),
	}
	m.background, m.stop = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, m.closeStores())
		}
	}()
	if m.snapshots, err = snapshot.Open(ctx, filepath.Join(dir, "snapshots"), cfg.Snapshotter); err != nil {
		return nil, err
	}
	if err := m.openContent(ctx); err != nil {
		return nil, err
	}
	if m.store, err = recordstore.Open(filepath.Join(dir, "records.db")); err != nil {
		return nil, err
	}
	if err := m.load(ctx); err != nil {
		return nil, fmt.Errorf("read cache records: %w", err)
	}
	m.tidyLater(true)
	return m, nil
}

// claim makes dir ours, or makes sure that it is.
func claim(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "version")
	got, err := os.ReadFile(file)
	if err == nil {
		if v := strings.TrimSpace(string(got)); v != stateVersion {
			return fmt.Errorf("%s holds a cache of version %q, this program reads version %s", dir, v, stateVersion)
		}
		return nil
	}
	if !os.IsNotExist(err) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty and no cache of this program: choose another root", dir)
	}
	// Synced: a folder full of state with an empty version would be refused after a power failure.
	return continuity.AtomicWriteFile(file, []byte(stateVersion+"\n"), 0o600)
}

func (m *Manager) openContent(ctx context.Context) error {
	var err error
	m.blobs, err = local.NewStore(filepath.Join(m.dir, "content"))
	if err != nil {
		return fmt.Errorf("open content store: %w", err)
	}
	m.bolt, err = boltfile.Open(filepath.Join(m.dir, "content.db"), nil)
	if err != nil {
		return fmt.Errorf("open content metadata: %w", err)
	}
	m.meta = metadata.NewDB(m.bolt.DB, m.blobs, nil)
	if err := m.meta.Init(ctx); err != nil {
		return fmt.Errorf("open content metadata: %w", err)
	}
	m.content = namespacedContent{m.meta.ContentStore()}
	m.leases = namespacedLeases{metadata.NewLeaseManager(m.meta), m.noteExpiry}
	return nil
}

// Content returns the content store. Content that is under no lease is removed at any time.
// Contexts need not name a namespace.
func (m *Manager) Content() content.Store { return m.content }

// Leases returns the leases that keep content. Contexts need not name a namespace.
func (m *Manager) Leases() leases.Manager { return m.leases }

// SnapshotterName returns the name of the snapshotter in use.
func (m *Manager) SnapshotterName() string { return m.snapshots.Name() }

// SnapshotterReason returns why it was chosen, for the log.
func (m *Manager) SnapshotterReason() string { return m.snapshots.Reason() }

// Flush writes at once what would be written in a moment: afterwards a crash loses nothing that was
// done before. Without it, a crash loses what was done in the last moment.
func (m *Manager) Flush() error { return m.store.Flush() }

// Close waits for work behind the scenes, writes what is still to be written and closes the
// stores. Handles must have been released. It may be called more than once.
func (m *Manager) Close() error {
	m.closeOnce.Do(func() {
		m.mu.Lock()
		m.closed = true
		if m.expiring.timer != nil {
			m.expiring.timer.Stop()
		}
		m.mu.Unlock()
		m.stop(errors.New("cache is closed"))
		m.running.Wait()
		m.closeErr = errors.Join(m.syncRecords(), m.closeStores())
	})
	return m.closeErr
}

func (m *Manager) closeStores() error {
	var errs []error
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	if m.bolt != nil {
		errs = append(errs, m.bolt.Close())
	}
	if m.snapshots != nil {
		errs = append(errs, m.snapshots.Close())
	}
	return errors.Join(errs...)
}

// closer is the part of Manager that ends it.
type closer struct {
	closeOnce sync.Once
	closeErr  error
	closed    bool
	// running counts work behind the scenes, which ends when background does.
	running    sync.WaitGroup
	background context.Context //nolint:containedctx // the lifetime of the manager
	stop       context.CancelCauseFunc
}
