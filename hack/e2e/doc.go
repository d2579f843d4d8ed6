// Package e2e holds the tests of the programs as a whole: a real buildctl against a real buildkitd
// on state of its own, with a real registry. They prove what the project promises to those who run
// it: what is cached and what runs again, that nothing hangs, leaks or falls over, whatever clients,
// images and disks do, and what it costs beside the plain tools that do the same work.
//
// It has tests and benchmarks only. What belongs to one package is tested there; what is here needs
// both programs. Every daemon is checked for leaks when its test ends, see package harness.
//
// Tests with Soak in their name repeat: some rounds in `make test`, many in `make soak`.
package e2e
