// Package stackpb is stack traces as errors carry them from one program to the other.
//
// Generated code only. Package status attaches and reads them.
package stackpb
