package schedule

// Waiting returns how many wants wait for an edge.
func (s *Scheduler) Waiting(e Edge) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(e.node.waiters)
}
