package op

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// forBoth takes output as those who watch are shown it and as the record has it.
func forBoth(shown, kept *strings.Builder) event.Sink {
	return event.SinkFunc(func(b event.Batch) {
		for _, log := range b.Logs {
			if log.Audience != event.Record {
				shown.Write(log.Data)
			}
			if log.Audience != event.Watchers {
				kept.Write(log.Data)
			}
		}
	})
}

// What those who watch are shown is bounded; the record has everything.
func TestOutputIsClippedForThoseWhoWatchOnly(t *testing.T) {
	var shown, kept strings.Builder
	l := newLogs(event.NewScope(forBoth(&shown, &kept), "v"), LogLimits{Size: 1 << 20, Speed: -1})
	var all strings.Builder
	buf := make([]byte, 1000)
	for i := range 3000 {
		copy(buf, fmt.Sprintf("%0999d\n", i))
		all.Write(buf)
		n, err := l.writer(event.Stdout).Write(buf)
		require.NoError(t, err)
		require.Len(t, buf, n)
	}
	l.close(true)
	require.Equal(t, all.String(), kept.String())
	live, marker, ok := strings.Cut(shown.String(), "\n[output clipped, log limit 1MiB reached]\n")
	require.True(t, ok)
	require.Equal(t, all.String()[:1<<20], live)
	require.Equal(t, all.String()[all.Len()-tailSize:], marker, "the end is shown if the step fails")
}

// A step that has said too much at once is shown again when it has said no more than it might have.
func TestOutputIsShownAgainAfterTheLimitOfSpeed(t *testing.T) {
	for name, c := range map[string]struct {
		limits LogLimits
		want   string
	}{
		"of speed":          {LogLimits{Size: 1000, Speed: 10}, "aaaaaaaaaa<10B/s>efgggggggggggggggg<10B/s>"},
		"of speed alone":    {LogLimits{Size: -1, Speed: 10}, "aaaaaaaaaa<10B/s>efgggggggggggggggg<10B/s>"},
		"of speed and size": {LogLimits{Size: 11, Speed: 10}, "aaaaaaaaaa<10B/s>e<11B>"},
		"of size":           {LogLimits{Size: 10, Speed: -1}, "aaaaaaaaaa<10B>"},
		"of neither":        {LogLimits{Size: -1, Speed: -1}, "aaaaaaaaaa" + strings.Repeat("b", 90) + "cdef" + strings.Repeat("g", 20)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var shown, kept strings.Builder
				l := newLogs(event.NewScope(forBoth(&shown, &kept), "v"), c.limits)
				all := ""
				say := func(text string) {
					all += text
					l.write(event.Stdout, []byte(text))
				}
				say(strings.Repeat("a", 10))
				say(strings.Repeat("b", 90))
				say("c")
				time.Sleep(10 * time.Second) //nolint:forbidigo // moves the clock of the bubble
				say("d")                     // two bytes more than there may have been
				time.Sleep(2 * time.Second)  //nolint:forbidigo // moves the clock of the bubble
				say("e")
				say("f")
				say(strings.Repeat("g", 20))
				text := strings.ReplaceAll(shown.String(), "\n[output clipped, log limit ", "<")
				require.Equal(t, c.want, strings.ReplaceAll(text, " reached]\n", ">"))
				require.Equal(t, all, kept.String())
			})
		})
	}
}

func TestLimitsOfOutputComeFromTheEnvironment(t *testing.T) {
	for env, want := range map[[2]string]LogLimits{
		{"", ""}:                       DefaultLogLimits,
		{"-1", "-1"}:                   {Size: -1, Speed: -1},
		{"0", "0"}:                     {},
		{"10", "20"}:                   {Size: 10, Speed: 20},
		{"2MiB", " 7"}:                 DefaultLogLimits,
		{"1e6", "0x10"}:                DefaultLogLimits,
		{"10", "fast"}:                 {Size: 10, Speed: DefaultLogLimits.Speed},
		{"-5", "99999999999999999999"}: {Size: -5, Speed: DefaultLogLimits.Speed},
	} {
		got := LogLimitsFromEnv(func(name string) string {
			return map[string]string{"BUILDKIT_STEP_LOG_MAX_SIZE": env[0], "BUILDKIT_STEP_LOG_MAX_SPEED": env[1]}[name]
		})
		require.Equal(t, want, got, "%q", env)
	}
}

func TestTheEndOfClippedOutputIsKeptInPiecesOfAnySize(t *testing.T) {
	for _, size := range []int{1, 1000, tailSize - 1, tailSize, tailSize + 1, 3 * tailSize} {
		var shown, all []byte
		l := newLogs(event.NewScope(event.SinkFunc(func(b event.Batch) {
			for _, log := range b.Logs {
				if log.Audience == event.Watchers {
					shown = bytes.Clone(log.Data)
				}
			}
		}), "v"), LogLimits{Size: 0, Speed: -1})
		piece := make([]byte, size)
		for n := 0; n < tailSize+5000; n += size {
			for i := range piece {
				piece[i] = byte((n + i) * 7 >> 3)
			}
			all = append(all, piece...)
			l.write(event.Stderr, piece)
		}
		l.close(true)
		require.Equal(t, all[len(all)-tailSize:], shown, size)
	}
}

// A step that says as much as it may is not told to say too much again and again.
func TestOutputAtTheLimitOfSpeedDoesNotComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		markers := 0
		l := newLogs(event.NewScope(event.SinkFunc(func(b event.Batch) {
			for _, log := range b.Logs {
				if log.Audience == event.Watchers {
					markers++
				}
			}
		}), "v"), LogLimits{Size: -1, Speed: 1000})
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // moves the clock of the bubble
		for range 1000 {
			for range 4 {
				l.write(event.Stdout, make([]byte, 5))
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // as above
		}
		require.Less(t, markers, 20)
	})
}
