//go:build !race

package harness

// raceEnabled tells whether the test runs under the race detector; then so do the programs.
const raceEnabled = false
