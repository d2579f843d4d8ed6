package cache

import (
	"context"
	"io"
)

// OpenAt opens a cache as if the machine had been started anew under the name boot.
func OpenAt(ctx context.Context, cfg Config, boot string) (*Manager, error) {
	return open(ctx, cfg, boot)
}

// SyncFiles brings all files to disk.
func (m *Manager) SyncFiles() error { return m.syncRecords() }

// Sizes of layers, and how many large ones are compressed at a time.
const (
	LargeLayer = largeLayer
	MaxLarge   = maxLarge
)

// InTurn has a layer written as it is when it is to be compressed.
func (m *Manager) InTurn(ctx context.Context, write func(io.Writer) error) (inTurn func(io.Writer) error, end func()) {
	return m.inTurn(ctx, write)
}
