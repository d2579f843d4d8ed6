// Command dialer opens connections to the agent of a step, says something on each, and fails once one
// of them has answered or has ended.
package main

import (
	"net"
	"os"
	"strconv"
)

func main() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	answered := make(chan struct{}, n)
	for range n {
		conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
		if err != nil {
			panic(err)
		}
		go func() {
			_, _ = conn.Write([]byte("hello"))
			_, _ = conn.Read(make([]byte, 1)) // or the end
			answered <- struct{}{}
		}()
	}
	want, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	for range want {
		<-answered
	}
	os.Exit(3)
}
