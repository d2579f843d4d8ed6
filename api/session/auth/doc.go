// Package authpb is the session service by which the daemon asks the client for registry
// credentials.
//
// Generated code only; both halves are in session/auth.
package authpb
