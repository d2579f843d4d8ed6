// Package uploadpb is the session service from which the daemon pulls a context that the client was
// given as a stream.
//
// Generated code only; both halves are in session/upload.
package uploadpb
