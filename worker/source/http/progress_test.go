//go:build linux

package http

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
)

func TestProgressIsShownOfWhatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shown []event.Status
		scope := event.NewScope(event.SinkFunc(func(b event.Batch) { shown = append(shown, b.Statuses...) }), "sha256:v")
		short := newProgress(scope, "f", 4)
		_, err := short.Write([]byte("abcd"))
		require.NoError(t, err)
		short.end()
		require.Empty(t, shown)

		long := newProgress(scope, "f", 30)
		for range 30 {
			<-time.After(100 * time.Millisecond)
			_, err := long.Write([]byte("a"))
			require.NoError(t, err)
		}
		long.end()
		require.Len(t, shown, 12)
		for n, st := range shown {
			require.Equal(t, "downloading f", st.ID)
			require.EqualValues(t, 30, st.Total)
			require.Equal(t, min(int64(10+2*n), 30), st.Current)
			require.Equal(t, n == len(shown)-1, st.Completed != nil)
		}
	})
}
