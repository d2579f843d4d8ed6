// Package filesyncpb is the session services that carry trees of files: contexts to the daemon,
// outputs to the client.
//
// Generated code only; both halves, and the protocol inside the streams, are in session/filesync.
package filesyncpb
