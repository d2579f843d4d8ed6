package filesync

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// prompt is a receiver that wants nothing and says so as soon as it has been told of everything, before the
// sender knows that it was told.
type prompt struct {
	snd  *sender
	told chan struct{}
	// ready is whether the sender would have taken the end.
	ready bool
}

func (*prompt) Context() context.Context { return context.Background() }
func (*prompt) batchSize() int           { return 1 << 10 }

func (p *prompt) sendPackets(packets []*types.Packet) error {
	if last := packets[len(packets)-1]; last.Type == types.PACKET_STAT && last.Stat == nil {
		p.ready = p.snd.idle()
		close(p.told)
	}
	return nil
}

func (p *prompt) receivePackets() ([]*types.Packet, error) {
	<-p.told
	return []*types.Packet{{Type: types.PACKET_FIN}}, nil
}

func TestAReceiverMayBeDoneAsSoonAsItHasBeenToldOfEverything(t *testing.T) {
	tree, err := fsutil.NewFS(t.TempDir())
	require.NoError(t, err)
	p := &prompt{told: make(chan struct{})}
	p.snd = newSender(p, tree, sendOpt{})
	err = p.snd.run(t.Context())
	p.snd.wait()
	require.True(t, p.ready)
	require.NoError(t, err)
}
