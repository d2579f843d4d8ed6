// Package harness runs the real programs for tests: it builds buildkitd and buildctl, starts a
// daemon on state of its own beside a real registry, runs clients, and checks that nothing is
// left behind.
//
// Only tests of cmd, examples and hack use it. They are to prove behaviour through the doors that
// users have; nothing here looks into the daemon. A test needs root, for mounts and containers,
// and the Debian packages of hack/install-deps.sh; what is missing fails the test.
//
//	registry := harness.StartRegistry(t)
//	registry.PushBusybox(t)
//	daemon := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
//	daemon.MustBuildctl(t, "build", "--frontend=dockerfile.v0", "--local=context="+dir, "--local=dockerfile="+dir)
//
// Everything started ends with the test. At the end of a daemon the harness fails the test if a
// mount, a process, a container, a cgroup or a temporary file of the daemon is still there, so
// every test is a test for leaks too. When a test fails, it logs what the daemon printed.
//
// The environment variable BUILDKIT_TEST_BIN names a folder with other programs to test, and
// BUILDKIT_TEST_SOAK makes Rounds give the larger number.
package harness
