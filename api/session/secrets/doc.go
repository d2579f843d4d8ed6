// Package secretspb is the session service by which the daemon asks the client for a secret.
//
// Generated code only; both halves are in session/secrets.
package secretspb
