package solver

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
)

// Bounds of the warnings of one build, which are kept for listeners that come late.
const (
	maxWarnings     = 10_000
	maxWarningBytes = 64 << 20
)

// warnings counts those that frontends have told.
type warnings struct {
	mu           sync.Mutex
	count, bytes int
}

// take counts a warning.
func (w *warnings) take(msg string, opt gateway.WarnOpt) error {
	size := len(msg) + len(opt.URL) + proto.Size(opt.Source)
	for _, d := range opt.Detail {
		size += len(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count >= maxWarnings || w.bytes+size > maxWarningBytes {
		return status.New(codes.ResourceExhausted, fmt.Sprintf("a build has at most %d warnings of %d bytes altogether", maxWarnings, maxWarningBytes))
	}
	w.count++
	w.bytes += size
	return nil
}
