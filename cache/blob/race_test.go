//go:build race

package blob

// raced tells that the race detector watches: it slows compressors tenfold.
const raced = true
