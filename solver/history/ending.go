package history

// maxEndings is how many builds may have ended of which nobody makes a record yet.
const maxEndings = 64

// later has something done after a build, when that for the builds before it is done. It returns at once
// unless too many builds wait.
func (s *Store) later(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.endings) >= maxEndings {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	s.endings = append(s.endings, fn)
	if !s.atEndings {
		s.atEndings = true
		s.ending.Go(s.end)
	}
}

// end does what is to be done after builds, until nothing is left.
func (s *Store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.endings) > 0 {
		fn := s.endings[0]
		s.endings = s.endings[1:]
		s.mu.Unlock()
		fn()
		s.mu.Lock()
	}
	s.atEndings = false
}
