// Package gatewaypb is the bridge service, by which a frontend or a client that acts as one asks
// the daemon to solve, to resolve, to read results and to run containers.
//
// Generated code only. Frontends use package client/gateway, which hides the two ways to reach it.
package gatewaypb
