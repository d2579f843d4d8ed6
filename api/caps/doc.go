// Package capspb is the message by which one side of a connection tells the other what it
// understands.
//
// A capability enters the lists that the daemon sends together with the feature it names: a client
// uses at once what it is told of.
package capspb
