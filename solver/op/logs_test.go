package op

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
)

func TestAProgramForAnotherProcessorIsNoticedHoweverItsMessageIsCut(t *testing.T) {
	const text = "exec /bin/sh: exec format error\n"
	for size := 1; size <= len(text); size++ {
		l := newLogs(event.Scope{}, LogLimits{Size: 0, Speed: -1})
		l.foreign = true
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			_, err := l.writer(event.Stderr).Write([]byte(rest[:n]))
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.True(t, l.notExecutable(), "in pieces of %d bytes", size)
	}

	for name, c := range map[string]struct {
		foreign bool
		text    string
	}{
		"a program of this processor": {false, text},
		"other output":                {true, "exec format\nerror\n"},
	} {
		l := newLogs(event.Scope{}, DefaultLogLimits)
		l.foreign = c.foreign
		l.write(event.Stderr, []byte(c.text))
		require.False(t, l.notExecutable(), name)
	}
}
