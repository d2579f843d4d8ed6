package cache

import "context"

// OpenAt opens a cache as if the machine had been started anew under the name boot.
func OpenAt(ctx context.Context, cfg Config, boot string) (*Manager, error) {
	return open(ctx, cfg, boot)
}

// SyncFiles brings all files to disk.
func (m *Manager) SyncFiles() error { return m.syncRecords() }

// Waiters returns how many wait for work that is shared.
func (m *Manager) Waiters() (n int) {
	m.flightsMu.Lock()
	defer m.flightsMu.Unlock()
	for _, f := range m.flights {
		n += len(f.accesses())
	}
	return n
}
