package op

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
)

type record struct {
	schedule.Result
	id string
}

func (r record) ID() string { return r.id }

func TestChecksumErrorNamesWorkerAndRecord(t *testing.T) {
	f := &Factory{worker: &worker.Worker{ID: "worker"}}
	err := f.checksumError(record{id: "tree"}, fs.ErrNotExist)
	require.EqualError(t, err, "failed to calculate checksum of ref worker::tree: file does not exist")
	require.ErrorIs(t, err, fs.ErrNotExist)
}
