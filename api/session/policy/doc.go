// Package policypb is the session service by which the daemon asks the client whether a source may
// be used.
//
// Generated code only; both halves are in session/policy.
package policypb
