// Package sshpb is the session service that forwards ssh agents and sockets of the client into
// build steps.
//
// Generated code only; both halves are in session/ssh.
package sshpb
