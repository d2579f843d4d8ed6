// Command where prints the platform that it was compiled for.
package main

import (
	"fmt"
	"runtime"
)

func main() {
	fmt.Println(runtime.GOOS + "/" + runtime.GOARCH)
}
