package dockerfile

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPanicGoesOnWhereItCanBeRecovered(t *testing.T) {
	ended := false
	require.PanicsWithValue(t, "boom", func() {
		defer func() {
			text, ok := recover().(string)
			require.True(t, ok)
			require.Contains(t, text, "parallel_test.go", "where it came from is told")
			panic(text[:len("boom")])
		}()
		each(t.Context(), 2, func(ctx context.Context, i int) error {
			if i == 0 {
				panic("boom")
			}
			<-ctx.Done()
			ended = true
			return nil
		})
	})
	require.True(t, ended, "the others are ended and waited for")
}
