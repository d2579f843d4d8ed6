package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// LabelSpare marks the leases of content that is kept to save requests and can be had again at any
// time: a prune of everything removes them. Its value may be any but empty, which would not be stored.
const LabelSpare = "buildkit/lease.spare"

// labelExpire is where containerd keeps the time from which on a lease counts for nothing. The
// lease, and what it alone keeps, goes with the next collection.
const labelExpire = "containerd.io/gc.expire"

// expirySlack is how long after its end a lease may still be there: a collection is a walk through
// all content, so one is to serve many leases.
const expirySlack = time.Minute

// expiring has content collected when leases have expired.
type expiring struct {
	timer *time.Timer
	last  time.Time // when the last of the leases expires
}

// noteExpiry has a collection follow the end of a lease, if it has one.
func (m *Manager) noteExpiry(l leases.Lease) {
	end, err := time.Parse(time.RFC3339, l.Labels[labelExpire])
	if err != nil {
		return // it has none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if end.After(m.expiring.last) {
		m.expiring.last = end
	}
	if m.expiring.timer == nil {
		m.collectExpired()
	}
}

// collectExpired sets the timer. The caller holds mu.
func (m *Manager) collectExpired() {
	if m.closed {
		return
	}
	m.expiring.timer = time.AfterFunc(time.Until(m.expiring.last)+expirySlack, func() {
		m.mu.Lock()
		m.expiring.timer = nil
		if m.expiring.last.After(time.Now()) {
			m.collectExpired()
		}
		m.mu.Unlock()
		m.tidyLater(true)
	})
}

// removeSpare removes the leases with LabelSpare and tells whether there were any.
func (m *Manager) removeSpare(ctx context.Context) (bool, error) {
	spare, err := m.leases.List(ctx, fmt.Sprintf("labels.%q", LabelSpare))
	if err != nil || len(spare) == 0 {
		return false, err
	}
	return true, m.leaseTx(ctx, func(ctx context.Context) error {
		for _, l := range spare {
			if err := m.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
}
