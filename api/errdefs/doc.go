// Package errdefspb is the messages inside typed errors: which vertex failed, at which lines of
// which file, and what of a failed step can be looked at.
//
// Generated code only. Package status turns them into Go errors and back.
package errdefspb
