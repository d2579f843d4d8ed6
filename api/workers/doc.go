// Package workerspb is what the daemon tells of its workers: platforms, labels, garbage collection
// and devices.
//
// Generated code only.
package workerspb
