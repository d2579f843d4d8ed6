// Package runtimetest is the suite that every worker.Runtime passes. It runs real containers and
// needs root. What is tested is behaviour that a step of a build can see; nothing knows how the
// runtime does it.
package runtimetest

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker"
)

// Fixture is a runtime under test.
type Fixture struct {
	Runtime worker.Runtime
	// SecretDir is where worker.SecretMount may mount.
	SecretDir string
	// Traces lists what the runtime has on the host now: mounts, files, cgroups. Without containers
	// it is empty.
	Traces func(t *testing.T) []string
}

// Run runs the suite. newFixture is called for each test.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for name, test := range map[string]func(*testing.T, *box){
		"output of both streams arrives whole":                      testOutput,
		"an exit code is an error that has it":                      testExitCode,
		"valid exit codes replace zero":                             testValidExitCodes,
		"a command that is not there tells so on standard error":    testNoCommand,
		"input is read to its end":                                  testInput,
		"the last of equal variables wins":                          testEnv,
		"a user has the groups of the tree":                         testUsers,
		"an unknown user or group is named":                         testUnknownUser,
		"account files cannot leave the tree or block":              testHostileAccounts,
		"the working folder is made for the user":                   testCwd,
		"names and addresses of the host are in place":              testHosts,
		"a sandboxed process has the default privileges":            testSandbox,
		"an insecure process has all there is":                      testInsecure,
		"no network is a loopback interface":                        testNoNetwork,
		"limits hold":                                               testLimits,
		"mounts show their trees":                                   testMounts,
		"a selector is resolved within its tree":                    testSelector,
		"a secret is a read-only file in memory":                    testSecret,
		"a read-only root cannot be changed":                        testReadonlyRoot,
		"mount points that were made are removed without a trace":   testStubs,
		"mount points are found through links within the tree":      testStubLinks,
		"what a process changes in a folder of a mount point stays": testStubKeepsChanges,
		"a process that takes too much memory is told so":           testOOM,
		"what a process takes is sampled":                           testUsage,
		"the end of the context kills the container":                testCancel,
		"cancelling during the start leaves nothing":                testCancelEarly,
		"signals reach the process":                                 testSignal,
		"a terminal has the size that is asked for":                 testTTY,
		"another process runs in the same container":                testExec,
		"another process ends with the container":                   testExecEnds,
		"background processes end with the container":               testBackground,
		"containers run at the same time":                           testConcurrent,
		"an id names one container":                                 testID,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			b := &box{Fixture: f, tree: NewTree(t)}
			test(t, b)
			require.Empty(t, f.Traces(t))
		})
	}
}

// box is a container that a test makes.
type box struct {
	Fixture
	tree *Tree
}

func (b *box) container() worker.Container {
	return worker.Container{Root: worker.Mount{Source: b.tree, Dest: "/"}}
}

const path = "PATH=/bin"

// run runs a script with sh and returns what it wrote.
func (b *box) run(t *testing.T, script string, change ...func(*worker.Container, *worker.Process)) (out, errOut string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := b.container()
	p := worker.Process{Args: []string{"sh", "-c", script}, Env: []string{path}, Cwd: "/", Stdout: &stdout, Stderr: &stderr}
	for _, f := range change {
		f(&c, &p)
	}
	err = b.Runtime.Run(t.Context(), c, p, nil)
	return stdout.String(), stderr.String(), err
}

// must is run for scripts that succeed. It returns the standard output without blanks at its ends.
func (b *box) must(t *testing.T, script string, change ...func(*worker.Container, *worker.Process)) string {
	t.Helper()
	out, errOut, err := b.run(t, script, change...)
	require.NoError(t, err, errOut)
	return strings.TrimSpace(out)
}

// live is a container that runs until it is cancelled or ended.
type live struct {
	id     string
	cancel context.CancelCauseFunc
	done   chan error
}

// start runs script and returns when the process runs.
func (b *box) start(t *testing.T, script string, change ...func(*worker.Container, *worker.Process)) *live {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	c := b.container()
	c.ID = "test-" + strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, t.Name()[max(0, len(t.Name())-40):]))
	p := worker.Process{Args: []string{"sh", "-c", script}, Env: []string{path}, Cwd: "/"}
	for _, f := range change {
		f(&c, &p)
	}
	started := make(chan struct{})
	l := &live{id: c.ID, cancel: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.done <- b.Runtime.Run(ctx, c, p, started)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-ended
	})
	select {
	case <-started:
	case err := <-l.done:
		require.FailNow(t, "the container ended before it had started", "%v", err)
	}
	return l
}

// buffer is a bytes.Buffer for several goroutines, in which a test can wait for a text.
type buffer struct {
	mu   sync.Mutex
	cond *sync.Cond
	b    bytes.Buffer
}

func newBuffer() *buffer {
	b := &buffer{}
	b.cond = sync.NewCond(&b.mu)
	return b
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cond.Broadcast()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// wait returns when text has been written.
func (b *buffer) wait(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !strings.Contains(b.b.String(), text) {
		b.cond.Wait()
	}
}
