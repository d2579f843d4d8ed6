package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// twoStages has steps that depend on one file each, and a last stage that depends on both.
func twoStages(t *testing.T) string {
	t.Helper()
	return tree(t, map[string]string{
		"Dockerfile": `FROM busybox AS words
COPY words /words
RUN sort /words > /sorted

FROM busybox AS numbers
COPY numbers /numbers
RUN sort -n /numbers > /sorted

FROM scratch
COPY --from=words /sorted /words
COPY --from=numbers /sorted /numbers
`,
		"words":   "pear\napple\n",
		"numbers": "2\n10\n1\n",
	})
}

// The steps of twoStages.
const (
	copyWords     = "[words 2/3] COPY words /words"
	sortWords     = "[words 3/3] RUN sort /words > /sorted"
	copyNumbers   = "[numbers 2/3] COPY numbers /numbers"
	sortNumbers   = "[numbers 3/3] RUN sort -n /numbers > /sorted"
	resultWords   = "[stage-2 1/2] COPY --from=words /sorted /words"
	resultNumbers = "[stage-2 2/2] COPY --from=numbers /sorted /numbers"
)

func TestOnlyWhatChangedRunsAgain(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := twoStages(t)
	all := []string{copyWords, sortWords, copyNumbers, sortNumbers, resultWords, resultNumbers}

	t.Run("the first build executes every step", func(t *testing.T) {
		out := t.TempDir()
		require.ElementsMatch(t, all, ran(d.Build(t, dir, toLocal(out))))
		require.Equal(t, "apple\npear\n", read(t, out, "words"))
		require.Equal(t, "1\n2\n10\n", read(t, out, "numbers"))
	})
	t.Run("the second executes nothing", func(t *testing.T) {
		out := t.TempDir()
		second := d.Build(t, dir, toLocal(out))
		require.Empty(t, ran(second))
		require.NotEmpty(t, cached(second))
		require.Equal(t, "1\n2\n10\n", read(t, out, "numbers"))
	})
	t.Run("a changed file runs what depends on it and nothing else", func(t *testing.T) {
		write(t, filepath.Join(dir, "numbers"), "3\n20\n1\n")
		out := t.TempDir()
		require.ElementsMatch(t, []string{copyNumbers, sortNumbers, resultNumbers}, ran(d.Build(t, dir, toLocal(out))))
		require.Equal(t, "1\n3\n20\n", read(t, out, "numbers"))
		require.Equal(t, "apple\npear\n", read(t, out, "words"))
	})
	t.Run("a step whose inputs come out the same is not run", func(t *testing.T) {
		write(t, filepath.Join(dir, "numbers"), "20\n3\n1\n")
		require.ElementsMatch(t, []string{copyNumbers, sortNumbers}, ran(d.Build(t, dir)))
	})
	t.Run("a file that no step names runs nothing", func(t *testing.T) {
		write(t, filepath.Join(dir, "other"), "other\n")
		require.Empty(t, ran(d.Build(t, dir)))
	})
	t.Run("a file as it was before runs nothing", func(t *testing.T) {
		write(t, filepath.Join(dir, "numbers"), "2\n10\n1\n")
		out := t.TempDir()
		require.Empty(t, ran(d.Build(t, dir, toLocal(out))))
		require.Equal(t, "1\n2\n10\n", read(t, out, "numbers"))
	})
	t.Run("another folder with the same files runs nothing", func(t *testing.T) {
		require.Empty(t, ran(d.Build(t, twoStages(t))))
	})
	t.Run("a changed instruction runs itself and what comes after it", func(t *testing.T) {
		other := twoStages(t)
		write(t, filepath.Join(other, "Dockerfile"), "FROM busybox AS words\nCOPY words /words\nRUN sort -r /words > /sorted\nRUN true\n")
		require.Equal(t, []string{"[3/4] RUN sort -r /words > /sorted", "[4/4] RUN true"}, ran(d.Build(t, other)))
	})
	t.Run("a restarted daemon has it all in its cache", func(t *testing.T) {
		d.Restart(t)
		out := t.TempDir()
		require.Empty(t, ran(d.Build(t, dir, toLocal(out))))
		require.Equal(t, "apple\npear\n", read(t, out, "words"))
	})
	t.Run("no-cache runs every step", func(t *testing.T) {
		require.ElementsMatch(t, all, ran(d.Build(t, dir, "--no-cache")))
	})
	t.Run("no-cache for a stage runs the steps of that stage", func(t *testing.T) {
		require.ElementsMatch(t, []string{copyWords, sortWords}, ran(d.Build(t, dir, "--opt=no-cache=words")))
	})
	t.Run("after no-cache the cache is there again", func(t *testing.T) {
		require.Empty(t, ran(d.Build(t, dir)))
	})
	t.Run("pruned, everything runs again", func(t *testing.T) {
		d.MustBuildctl(t, "prune", "--all")
		require.ElementsMatch(t, all, ran(d.Build(t, dir)))
	})
	d.RequireIdle(t)
}

// Sizes and times are a hint that saves reading files; nobody may get stale content for it.
func TestAChangeThatSizeAndTimeDoNotShowIsNoticed(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, change := range map[string]func(t *testing.T, path, text string){
		"written in place": func(t *testing.T, path, text string) {
			t.Helper()
			write(t, path, text)
		},
		"put in place of the old file": func(t *testing.T, path, text string) {
			t.Helper()
			other := filepath.Join(t.TempDir(), "other")
			write(t, other, text)
			require.NoError(t, os.Chtimes(other, old, old))
			require.NoError(t, os.Rename(other, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "before"})
			path := filepath.Join(dir, "file")
			for _, text := range []string{"before", "behind", "beyond"} {
				change(t, path, text)
				require.NoError(t, os.Chtimes(path, old, old))
				out := t.TempDir()
				d.Build(t, dir, toLocal(out))
				require.Equal(t, text, read(t, out, "file"))
			}
		})
	}
	t.Run("of the time alone, runs nothing", func(t *testing.T) {
		dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "same"})
		d.Build(t, dir)
		require.NoError(t, os.Chtimes(filepath.Join(dir, "file"), old, old))
		require.Empty(t, ran(d.Build(t, dir)))
	})
}

func TestRecordsAreListedAndPruned(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	require.Contains(t, d.MustBuildctl(t, "du").Stdout, "Total:")
	d.Build(t, dockerfile(t, "FROM busybox", "RUN --mount=type=cache,target=/c head -c 3000000 /dev/urandom > /c/x", "RUN head -c 5000000 /dev/urandom > /y"))
	require.Contains(t, d.MustBuildctl(t, "du", "--verbose").Stdout, "exec.cachemount")

	d.MustBuildctl(t, "prune", "--filter=type==exec.cachemount")
	require.NotContains(t, d.MustBuildctl(t, "du", "--verbose").Stdout, "exec.cachemount")
	requirePruned(t, d)
}
