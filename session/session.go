// Package session is a connection of a client to a daemon that runs the other way round: the
// client serves, the daemon calls. Over it the daemon reads the client's files, asks for
// credentials, secrets and ssh agents, and sends outputs back.
//
// On the wire a session is HTTP/2 inside the byte stream of Control.Session; the client is the
// HTTP/2 and gRPC server. The package has both halves. A client makes a Session, adds the
// services it wants to offer (each an Attachable from a package below this one) and runs it. A
// daemon has one Manager that holds the Callers of all clients; the packages below this one hold
// the daemon's half of each service as functions that take a Caller.
//
// One session may be used by many builds, and one vertex may be worked on for the clients of
// several: a Group is the live set of session ids that may serve a request.
package session

// Group is a set of sessions that may serve a request, in order of preference. The set may grow
// and shrink while it is used: a vertex shared by several builds lives as long as any of them.
type Group interface {
	// SessionIDs returns the ids at this moment. The caller may keep the slice.
	SessionIDs() []string
}

// IDs is a Group that never changes.
type IDs []string

// SessionIDs returns the ids.
func (ids IDs) SessionIDs() []string { return append([]string(nil), ids...) }
