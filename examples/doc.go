// Package examples holds things to build; each folder has a Dockerfile and says in it what it
// shows. `make quickstart` builds hello with a daemon of its own.
package examples
